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
    module.function("keys", keys).build()?;
    module.function("put_event", put_event).build()?;
    module.function("take_event", take_event).build()?;
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

/// Return what came: an object with `kind` (`call`, `message`, `config`, `stop`), `name`, `from`, `payload`;
/// of a message `missed` too: how many before it were lost.
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
    let mut told =
        json!({"kind": kind, "name": frame.name, "from": frame.header("from"), "payload": payload});
    if frame.kind == wire::MESSAGE {
        told["missed"] = frame.number("missed").into();
    }
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
    object(&json!({"value": value, "revision": number(&found, "revision")})).map(Some)
}

fn put(key: &str, value: Value, revision: Option<i64>) -> Outcome<i64> {
    let payload = to_json(value)?;
    let done = bus(|bus| bus.call("$store.put", payload.as_bytes(), header(key, revision), None))?;
    Ok(number(&done, "revision"))
}

fn delete(key: &str, revision: Option<i64>) -> Outcome<()> {
    bus(|bus| bus.call("$store.delete", b"", header(key, revision), None)).map(|_| ())
}

/// Return `#{keys, more, used, size}`: keys that begin with a text and come after another.
fn keys(prefix: &str, after: &str) -> Outcome<Value> {
    let asked = pairs([("prefix", prefix), ("after", after)]);
    value_of(&bus(|bus| bus.call("$store.list", b"", asked, None))?.payload)
}

/// Keep a durable event; return its number once it is safe. With an identifier it is kept once only.
fn put_event(subject: &str, value: Value, ident: Option<String>) -> Outcome<i64> {
    let payload = to_json(value)?;
    let mut headers = pairs([("subject", subject)]);
    headers.extend(ident.map(|ident| ("id".to_owned(), ident)));
    Ok(number(&bus(|bus| bus.call("$events.put", payload.as_bytes(), headers, None))?, "sequence"))
}

/// Take the oldest durable event that fits, `#{name, from, sequence, payload}`; None when none came in time. It
/// comes again unless a later take says its sequence as `done`.
fn take_event(pattern: &str, subscription: &str, done: Option<i64>, seconds: f64) -> Outcome<Option<Value>> {
    let mut headers = pairs([("pattern", pattern), ("subscription", subscription)]);
    headers.extend(done.map(|sequence| ("done".to_owned(), sequence.to_string())));
    let frame = match bus(|bus| bus.call("$events.take", b"", headers, Some(span(seconds)))) {
        Err(why) if why.starts_with("DeadlineExceeded") => return Ok(None),
        other => other?,
    };
    let payload = serde_json::from_slice(&frame.payload).unwrap_or(serde_json::Value::Null);
    let told = json!({
        "name": frame.header("subject"),
        "from": frame.header("from"),
        "sequence": number(&frame, "sequence"),
        "payload": payload,
    });
    object(&told).map(Some)
}

fn pairs<const N: usize>(named: [(&str, &str); N]) -> Vec<(String, String)> {
    named.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

fn header(key: &str, revision: Option<i64>) -> Vec<(String, String)> {
    let named = ("key".to_owned(), key.to_owned());
    std::iter::once(named).chain(revision.map(|number| ("revision".to_owned(), number.to_string()))).collect()
}

fn number(frame: &wire::Frame, header: &str) -> i64 {
    i64::try_from(frame.number(header)).unwrap_or(i64::MAX)
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
