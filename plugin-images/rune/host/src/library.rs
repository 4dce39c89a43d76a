//! What a script finds besides Rune's own library: `crucible`, printing, and the arithmetic of `f64`.

use std::io::{stdout, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rune::alloc::fmt::TryWrite;
use rune::runtime::{InstAddress, Memory, Output, Value, VmResult};
use rune::{Context, ContextError, Module};

use crate::exits;
use crate::files::Files;
use crate::signals;
use crate::talk;

/// The longest wait there is: a year.
const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

type Answer<T> = Result<T, String>;

/// Return everything a script may call.
pub fn context(files: &Files) -> Result<Context, ContextError> {
    let mut context = Context::with_config(false)?;
    context.install(crucible(files)?)?;
    context.install(printing()?)?;
    context.install(arithmetic()?)?;
    Ok(context)
}

fn crucible(files: &Files) -> Result<Module, ContextError> {
    let mut module = Module::with_crate("crucible")?;
    let own = files.clone();
    module.function("config", move || config(&own)).build()?;
    module.function("env", |name: &str| std::env::var(name).ok()).build()?;
    let own = files.clone();
    module.function("read", move |path: &str| said(path, own.read(path))).build()?;
    let own = files.clone();
    module.function("list", move |path: &str| said(path, own.list(path))).build()?;
    let own = files.clone();
    module.function("write", move |path: &str, text: &str| said(path, own.write(path, text))).build()?;
    module.function("from_json", from_json).build()?;
    module.function("to_json", to_json).build()?;
    module.function("now", now).build()?;
    module.function("sleep", |seconds: f64| std::thread::sleep(span(seconds))).build()?;
    module.function("wait", |seconds: f64| signals::wait(span(seconds))).build()?;
    module.function("exit", exit).build()?;
    talk::install(&mut module)?;
    Ok(module)
}

fn printing() -> Result<Module, ContextError> {
    let mut module = Module::with_crate_item("std", ["io"])?;
    module.function("print", |text: &str| put(text, "")).build()?;
    module.function("println", |text: &str| put(text, "\n")).build()?;
    module.raw_function("dbg", debug).build()?;
    Ok(module)
}

/// Rune leaves these out together with its `std` feature.
fn arithmetic() -> Result<Module, ContextError> {
    let mut module = Module::with_crate_item("std", ["f64"])?;
    module.function("sqrt", f64::sqrt).build_associated::<f64>()?;
    module.function("abs", f64::abs).build_associated::<f64>()?;
    module.function("powf", f64::powf).build_associated::<f64>()?;
    module.function("powi", f64::powi).build_associated::<f64>()?;
    module.function("floor", f64::floor).build_associated::<f64>()?;
    module.function("ceil", f64::ceil).build_associated::<f64>()?;
    module.function("round", f64::round).build_associated::<f64>()?;
    Ok(module)
}

fn config(files: &Files) -> Answer<Value> {
    let path = std::env::var("CRUCIBLE_CONFIG").unwrap_or_else(|_| "/config/config.json".to_owned());
    from_json(&said(&path, files.read(&path))?)
}

pub fn from_json(text: &str) -> Answer<Value> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub fn to_json(value: Value) -> Answer<String> {
    serde_json::to_string(&value).map_err(|error| error.to_string())
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |span| span.as_secs_f64())
}

pub fn span(seconds: f64) -> Duration {
    // Not a number is no time at all.
    Duration::from_secs_f64(seconds.max(0.0).min(LONGEST))
}

fn exit(code: i64) {
    let _ = stdout().flush();
    std::process::exit(i32::try_from(code.clamp(0, 255)).unwrap_or(exits::FAILED))
}

fn said<T>(path: &str, result: std::io::Result<T>) -> Answer<T> {
    result.map_err(|error| format!("{path}: {error}"))
}

fn put(text: &str, end: &str) -> VmResult<()> {
    let mut out = stdout().lock();
    let done = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes()));
    match done.and_then(|()| out.flush()) {
        Ok(()) => VmResult::Ok(()),
        Err(error) => VmResult::panic(error),
    }
}

fn debug(stack: &mut dyn Memory, at: InstAddress, count: usize, out: Output) -> VmResult<()> {
    let mut text = rune::alloc::String::new();
    for value in rune::vm_try!(stack.slice_at(at, count)) {
        rune::vm_try!(writeln!(text, "{value:?}"));
    }
    rune::vm_try!(out.store(stack, ()));
    put(&text, "")
}
