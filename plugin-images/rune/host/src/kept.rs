//! The script's store, and durable events.

use rune::runtime::Value;
use rune::{ContextError, Module};
use serde_json::json;

use crate::bus::{Bus, Outcome, With};
use crate::library::span;
use crate::talk::{bus, json_of, object, payload_of, value_of};
use crate::wire::Frame;

/// Add the functions of the store and of durable events to `crucible`.
pub fn install(module: &mut Module) -> Result<(), ContextError> {
    module.function("get", get).build()?;
    module.function("put", put).build()?;
    module.function("delete", delete).build()?;
    module.function("keys", keys).build()?;
    module.function("watch", |prefix: &str| bus(|bus| bus.watch(prefix)).map(i64::from)).build()?;
    module.function("put_event", put_event).build()?;
    module.function("take_event", take_event).build()?;
    Ok(())
}

/// Return `#{value, revision}` of a key; None when it is not there.
fn get(key: &str) -> Outcome<Option<Value>> {
    let found = match asked("$store.get", b"", header(key, None)) {
        Err(why) if why.starts_with("NotFound") => return Ok(None),
        other => other?,
    };
    // What is no JSON is (): the bytes are what came last.
    let value = json_of(&found.payload);
    object(&json!({"value": value, "revision": number(&found, "revision")})).map(Some)
}

fn put(key: &str, value: Value, revision: Option<i64>) -> Outcome<i64> {
    let payload = payload_of(value)?;
    Ok(number(&asked("$store.put", &payload, header(key, revision))?, "revision"))
}

fn delete(key: &str, revision: Option<i64>) -> Outcome<()> {
    asked("$store.delete", b"", header(key, revision)).map(drop)
}

/// Return `#{keys, more, used, size}`: keys that begin with a text and come after another.
fn keys(prefix: &str, after: &str) -> Outcome<Value> {
    value_of(&asked("$store.list", b"", pairs([("prefix", prefix), ("after", after)]))?.payload)
}

/// Keep a durable event; return its number once it is safe. With an identifier it is kept once only.
fn put_event(subject: &str, value: Value, ident: Option<String>) -> Outcome<i64> {
    let payload = payload_of(value)?;
    let mut headers = pairs([("subject", subject)]);
    headers.extend(ident.map(|ident| ("id".to_owned(), ident)));
    Ok(number(&asked("$events.put", &payload, headers)?, "sequence"))
}

/// Take the oldest durable event that fits, `#{name, from, sequence, payload, headers}`; None when none came in time.
/// It comes again unless a later take says its sequence as `done`.
fn take_event(pattern: &str, subscription: &str, done: Option<i64>, seconds: f64) -> Outcome<Option<Value>> {
    let mut headers = pairs([("pattern", pattern), ("subscription", subscription)]);
    headers.extend(done.map(|sequence| ("done".to_owned(), sequence.to_string())));
    let with = With { headers, time: Some(span(seconds)), ..With::default() };
    let frame = match bus(|bus: &mut Bus| bus.call("$events.take", b"", with)) {
        Err(why) if why.starts_with("DeadlineExceeded") => return Ok(None),
        other => other?,
    };
    let headers: std::collections::HashMap<&String, &String> =
        frame.headers.iter().map(|(name, value)| (name, value)).collect();
    let told = json!({
        "name": frame.header("subject"),
        "from": frame.header("from"),
        "sequence": number(&frame, "sequence"),
        "payload": json_of(&frame.payload),
        "headers": headers,
    });
    object(&told).map(Some)
}

fn asked(method: &str, payload: &[u8], headers: Vec<(String, String)>) -> Outcome<Frame> {
    bus(|bus| bus.call(method, payload, With { headers, ..With::default() }))
}

fn pairs<const N: usize>(named: [(&str, &str); N]) -> Vec<(String, String)> {
    named.map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

fn header(key: &str, revision: Option<i64>) -> Vec<(String, String)> {
    let named = ("key".to_owned(), key.to_owned());
    std::iter::once(named).chain(revision.map(|number| ("revision".to_owned(), number.to_string()))).collect()
}

fn number(frame: &Frame, header: &str) -> i64 {
    i64::try_from(frame.number(header)).unwrap_or(i64::MAX)
}
