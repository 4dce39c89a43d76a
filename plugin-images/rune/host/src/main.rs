//! Runs one Rune script as a plugin: `pub fn main(arguments)`, within a budget of instructions, memory and time.

mod arrivals;
mod bus;
mod exits;
mod files;
mod flow;
mod kept;
mod library;
mod limits;
mod log;
mod options;
mod report;
mod road;
mod signals;
mod streams;
mod talk;
mod trace;
mod wire;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use rune::runtime::debug::DebugArgs;
use rune::runtime::{Value, VmError};
use rune::{Context, Diagnostics, ItemBuf, Source, Sources, Unit, Vm};

use crate::files::Files;
use crate::options::Options;

#[global_allocator]
static ALLOCATOR: limits::Counting = limits::Counting;

fn main() {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => exits::with(&format!("{problem}\n{}", options::USAGE), exits::USAGE),
    };
    std::panic::set_hook(Box::new(|fault| {
        let text = fault.to_string().replace('\n', " ");
        exits::with(&format!("a fault of the host itself: {text}"), exits::FAILED)
    }));
    signals::listen();
    if let Some(time) = options.time {
        signals::end_after(time);
    }
    let files = Files::below(options.root.as_deref().unwrap_or("/"));
    let context = library::context(&files).expect("the library is the same in every run");
    if let Some(bytes) = options.memory {
        limits::set_memory(bytes);
    }
    let (unit, sources) = compile(&options, &files, &context);
    if let Some(instructions) = options.fuel {
        limits::set_fuel(instructions);
    }
    signals::running();
    let code = run(options, unit, &sources, &context);
    // Nothing is freed: values nested deeply enough would run out of stack on the way.
    std::process::exit(code)
}

/// Compile the script, or end the program.
fn compile(options: &Options, files: &Files, context: &Context) -> (Arc<Unit>, Sources) {
    let script = &options.script;
    let text = match files.read(script) {
        Ok(text) => text,
        Err(error) => exits::with(&format!("cannot read {script}: {error}"), exits::UNREADABLE),
    };
    let mut sources = Sources::new();
    let added = Source::new(script, text).and_then(|source| sources.insert(source));
    let mut diagnostics = Diagnostics::without_warnings();
    let built = added.ok().and_then(|_| {
        rune::prepare(&mut sources).with_context(context).with_diagnostics(&mut diagnostics).build().ok()
    });
    if limits::out_of_memory() {
        exits::with("out of memory: the limit is used up while compiling", exits::OUT_OF_MEMORY)
    }
    match built {
        Some(unit) => (Arc::new(unit), sources),
        None => exits::with(&report::mistakes(&diagnostics, &sources).join("\n  "), exits::INVALID),
    }
}

/// Run `main` to its end, and return the exit code.
fn run(options: Options, unit: Arc<Unit>, sources: &Sources, context: &Context) -> i32 {
    let takes_arguments = match main_of(&unit) {
        Some(takes) => takes,
        None => exits::with("the script has no `pub fn main(arguments)`", exits::INVALID),
    };
    let runtime = context.runtime().expect("memory for the library");
    let mut vm = Vm::new(Arc::new(runtime), unit);
    let execution =
        if takes_arguments { vm.execute(["main"], (options.arguments,)) } else { vm.execute(["main"], ()) };
    let ended = execution.and_then(|mut execution| {
        block_on(async {
            loop {
                if let Some(value) = execution.async_step().await.into_result()? {
                    return Ok(value);
                }
                if limits::out_of_fuel() {
                    return Err(VmError::panic("out of fuel"));
                }
            }
        })
    });
    match ended {
        Ok(value) => code_of(value),
        Err(error) => fail(&error, sources),
    }
}

fn fail(error: &VmError, sources: &Sources) -> i32 {
    let mut lines = report::failure(error, sources);
    let code = if limits::out_of_memory() {
        lines[0] = "out of memory: the limit is used up".to_owned();
        exits::OUT_OF_MEMORY
    } else if limits::out_of_fuel() {
        lines[0] = "out of fuel: the limit is used up".to_owned();
        exits::OUT_OF_FUEL
    } else {
        exits::FAILED
    };
    exits::with(&lines.join("\n"), code)
}

/// Whether `main` takes its arguments; None when there is no `main`, or it takes something else.
fn main_of(unit: &Unit) -> Option<bool> {
    let main = ItemBuf::with_item(["main"]).ok()?;
    let signatures = unit.debug_info()?.functions.values();
    let found = signatures.filter(|one| one.path == main).map(|one| match &one.args {
        DebugArgs::EmptyArgs => 0,
        DebugArgs::TupleArgs(count) => *count,
        DebugArgs::Named(names) => names.len(),
    });
    match found.last() {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    }
}

/// A whole number is the exit code, an `Err` is 1 and says why, anything else is 0.
fn code_of(value: Value) -> i32 {
    if let Ok(code) = rune::from_value::<i64>(value.clone()) {
        return i32::try_from(code.clamp(0, 255)).unwrap_or(exits::FAILED);
    }
    match rune::from_value::<Result<Value, Value>>(value) {
        Ok(Ok(value)) => code_of(value),
        Ok(Err(error)) => {
            let text = rune::from_value::<String>(error.clone()).unwrap_or_else(|_| format!("{error:?}"));
            exits::with(&format!("main returned an error: {text}"), 1)
        }
        Err(_) => 0,
    }
}

/// Run a future that never waits for anything outside: there is nothing outside to wait for.
fn block_on<T>(future: impl Future<Output = Result<T, VmError>>) -> Result<T, VmError> {
    match pin!(future).poll(&mut Task::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => Err(VmError::panic("the script waits for what will never happen")),
    }
}
