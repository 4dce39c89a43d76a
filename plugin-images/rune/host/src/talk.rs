//! The bus as a script has it: functions of `crucible`, values as JSON.

use std::cell::RefCell;
use std::time::Duration;

use rune::runtime::Value;
use rune::{ContextError, Module};
use serde_json::json;

use crate::bus::{Bus, Next, Outcome};
use crate::library::{from_json, span, to_json};
use crate::wire;

thread_local! {
    static BUS: RefCell<Bus> = RefCell::default();
}

/// Add the functions of the bus to `crucible`.
pub fn install(module: &mut Module) -> Result<(), ContextError> {
    module.function("open", |methods: Vec<String>| bus(|bus| bus.open(methods))).build()?;
    module.function("call", |name: &str, value: Value| call(name, value, None)).build()?;
    module
        .function("call_within", |name: &str, value: Value, seconds: f64| {
            call(name, value, Some(span(seconds)))
        })
        .build()?;
    module.function("publish", publish).build()?;
    module.function("subscribe", |pattern: &str| bus(|bus| bus.subscribe(pattern))).build()?;
    module.function("next", next).build()?;
    module.function("answer", answer).build()?;
    module.function("fail", |why: &str| bus(|bus| bus.fail(why))).build()?;
    module.function("ready", || plain("$bus.ready", b"")).build()?;
    module.function("unready", |why: &str| plain("$bus.unready", why.as_bytes())).build()?;
    module.function("get", get).build()?;
    module.function("put", put).build()?;
    module.function("delete", delete).build()?;
    Ok(())
}

fn bus<T>(work: impl FnOnce(&mut Bus) -> Outcome<T>) -> Outcome<T> {
    BUS.with_borrow_mut(work)
}

fn call(name: &str, value: Value, time: Option<Duration>) -> Outcome<Value> {
    let payload = to_json(value)?;
    let answer = bus(|bus| bus.call(name, payload.as_bytes(), Vec::new(), time))?;
    value_of(&answer.payload)
}

fn plain(name: &str, payload: &[u8]) -> Outcome<()> {
    bus(|bus| bus.call(name, payload, Vec::new(), None)).map(|_| ())
}

fn publish(subject: &str, value: Value) -> Outcome<i64> {
    let payload = to_json(value)?;
    bus(|bus| bus.publish(subject, payload.as_bytes()))
}

fn answer(value: Value) -> Outcome<()> {
    let payload = to_json(value)?;
    bus(|bus| bus.answer(payload.as_bytes()))
}

/// Return what came: an object with `kind` (`call`, `message`, `config`, `stop`), `name`, `from`, `payload`.
fn next(seconds: f64) -> Outcome<Option<Value>> {
    let frame = match bus(|bus| Ok(bus.next(span(seconds))))? {
        Next::Nothing => return Ok(None),
        Next::Stop => return object(&json!({"kind": "stop"})).map(Some),
        Next::Came(frame) => frame,
    };
    let kind = match (frame.kind, frame.name.as_str()) {
        (wire::MESSAGE, _) => "message",
        (_, "$config") => "config",
        _ => "call",
    };
    // What is no JSON arrives as (), as does nothing at all.
    let payload = serde_json::from_slice(&frame.payload).unwrap_or(serde_json::Value::Null);
    let told = json!({"kind": kind, "name": frame.name, "from": frame.header("from"), "payload": payload});
    object(&told).map(Some)
}

/// Return `#{value, revision}` of a key; None when it is not there.
fn get(key: &str) -> Outcome<Option<Value>> {
    let found = match bus(|bus| bus.call("$store.get", b"", header(key, None), None)) {
        Err(why) if why.starts_with("NotFound") => return Ok(None),
        other => other?,
    };
    let value: serde_json::Value = serde_json::from_slice(&found.payload)
        .map_err(|error| format!("Malformed: {key} holds no JSON: {error}"))?;
    object(&json!({"value": value, "revision": revision_of(found.header("revision"))})).map(Some)
}

fn put(key: &str, value: Value, revision: Option<i64>) -> Outcome<i64> {
    let payload = to_json(value)?;
    let done = bus(|bus| bus.call("$store.put", payload.as_bytes(), header(key, revision), None))?;
    Ok(revision_of(done.header("revision")))
}

fn delete(key: &str, revision: Option<i64>) -> Outcome<()> {
    bus(|bus| bus.call("$store.delete", b"", header(key, revision), None)).map(|_| ())
}

fn header(key: &str, revision: Option<i64>) -> Vec<(String, String)> {
    let named = ("key".to_owned(), key.to_owned());
    std::iter::once(named).chain(revision.map(|number| ("revision".to_owned(), number.to_string()))).collect()
}

fn revision_of(text: &str) -> i64 {
    text.parse().unwrap_or(0)
}

fn value_of(payload: &[u8]) -> Outcome<Value> {
    match std::str::from_utf8(payload) {
        Ok("") => from_json("null"),
        Ok(text) => from_json(text),
        Err(_) => Err("Malformed: the answer is no JSON".to_owned()),
    }
}

fn object(told: &serde_json::Value) -> Outcome<Value> {
    from_json(&told.to_string())
}
