//! The bus as a script has it: functions of `crucible`, values as JSON, bytes as they are.

use std::cell::RefCell;
use std::collections::HashMap;

use rune::runtime::{Bytes, Value};
use rune::{ContextError, Module};
use serde_json::json;

use crate::bus::{Bus, Next, Outcome, With};
use crate::library::{from_json, span, to_json};
use crate::wire::{self, Frame};
use crate::{kept, log};

const PRIORITIES: [&str; 4] = ["critical", "high", "normal", "low"];
const CODES: [&str; 14] = [
    "Malformed",
    "UnsupportedVersion",
    "NotPermitted",
    "NoSuchPlugin",
    "NoSuchMethod",
    "Unavailable",
    "Overloaded",
    "DeadlineExceeded",
    "Cancelled",
    "TooLarge",
    "Conflict",
    "NotFound",
    "StoreFull",
    "Failed",
];
const LATER: [&str; 3] = ["Unavailable", "Overloaded", "DeadlineExceeded"];

thread_local! {
    static BUS: RefCell<Bus> = RefCell::default();
}

/// Add the functions of the bus to `crucible`.
pub fn install(module: &mut Module) -> Result<(), ContextError> {
    module.function("open", |methods: Vec<String>| bus(|bus| bus.open(methods))).build()?;
    module.function("call", |name: &str, value: Value| call(name, value, With::default())).build()?;
    module
        .function("call_within", |name: &str, value: Value, seconds: f64| {
            call(name, value, With { time: Some(span(seconds)), ..With::default() })
        })
        .build()?;
    module
        .function("call_with", |name: &str, value: Value, with: Value| call(name, value, options(with)?))
        .build()?;
    module.function("publish", publish).build()?;
    module.function("subscribe", |pattern: &str| bus(|bus| bus.subscribe(pattern))).build()?;
    module.function("next", next).build()?;
    module.function("answer", answer).build()?;
    module.function("fail", fail).build()?;
    module.function("may_retry", may_retry).build()?;
    module.function("ready", || bus(Bus::say_ready)).build()?;
    module.function("unready", |why: &str| bus(|bus| bus.say_unready(why))).build()?;
    module.function("bytes", bytes).build()?;
    install_served(module)?;
    install_streams(module)?;
    install_log(module)?;
    kept::install(module)
}

/// What is known of the call that is being served.
fn install_served(module: &mut Module) -> Result<(), ContextError> {
    module
        .function("remaining", || {
            BUS.with_borrow(|bus| bus.served.as_ref()?.flow.left().map(|left| left.as_secs_f64()))
        })
        .build()?;
    module.function("cancelled", || BUS.with_borrow_mut(Bus::is_unwanted)).build()?;
    module
        .function("trace", || BUS.with_borrow(|bus| bus.trace.as_ref().map(|trace| trace.parent())))
        .build()?;
    Ok(())
}

fn install_streams(module: &mut Module) -> Result<(), ContextError> {
    module.function("stream", |name: &str, value: Value| stream(name, value, With::default())).build()?;
    module
        .function("stream_with", |name: &str, value: Value, with: Value| stream(name, value, options(with)?))
        .build()?;
    module.function("item", item).build()?;
    module.function("result", || BUS.with_borrow(|bus| value_of(&bus.got.payload))).build()?;
    module
        .function("send", |id: i64, value: Value| {
            let payload = payload_of(value)?;
            bus(|bus| bus.give(number_of(id)?, &payload, 0))
        })
        .build()?;
    module.function("finish", |id: i64| bus(|bus| bus.finish(number_of(id)?))).build()?;
    module.function("close", |id: i64| bus(|bus| bus.close(number_of(id)?))).build()?;
    Ok(())
}

fn install_log(module: &mut Module) -> Result<(), ContextError> {
    module.function("debug", |message: &str, fields: Value| write(0, message, fields)).build()?;
    module.function("info", |message: &str, fields: Value| write(1, message, fields)).build()?;
    module.function("warning", |message: &str, fields: Value| write(2, message, fields)).build()?;
    module.function("error", |message: &str, fields: Value| write(3, message, fields)).build()?;
    Ok(())
}

/// Do something with the one bus that a script has.
pub fn bus<T>(work: impl FnOnce(&mut Bus) -> Outcome<T>) -> Outcome<T> {
    BUS.with_borrow_mut(work)
}

fn call(name: &str, value: Value, with: With) -> Outcome<Value> {
    let payload = payload_of(value)?;
    let answer = bus(|bus| bus.call(name, &payload, with))?;
    value_of(&answer.payload)
}

fn stream(name: &str, value: Value, with: With) -> Outcome<i64> {
    let payload = payload_of(value)?;
    bus(|bus| bus.stream(name, &payload, with)).map(i64::from)
}

fn item(id: i64) -> Outcome<Option<Value>> {
    match bus(|bus| bus.item(number_of(id)?))? {
        Some(frame) => value_of(&frame.payload).map(Some),
        None => Ok(None),
    }
}

fn publish(subject: &str, value: Value) -> Outcome<i64> {
    let payload = payload_of(value)?;
    bus(|bus| bus.publish(subject, &payload))
}

fn answer(value: Value) -> Outcome<()> {
    let payload = payload_of(value)?;
    bus(|bus| bus.answer(&payload))
}

/// End the call with an error: of the code that the text begins with, else `Failed`.
fn fail(why: &str) -> Outcome<()> {
    match why.split_once(": ").filter(|(code, _)| CODES.contains(code)) {
        Some((code, rest)) => bus(|bus| bus.fail(code, rest)),
        None => bus(|bus| bus.fail("Failed", why)),
    }
}

/// Whether what an error is about may work a while later.
fn may_retry(why: &str) -> bool {
    LATER.iter().any(|code| why.split(':').next() == Some(code))
}

/// Return what came: an object with `kind` (`call`, `message`, `config`, `stop`, `change`, `unwatched`), `name`, `from`,
/// `payload`, `headers`; of a call `streams` too, of a message `missed`, of a change `revision` and `deleted`.
fn next(seconds: f64) -> Outcome<Option<Value>> {
    let told = match bus(|bus| Ok(bus.next(span(seconds))))? {
        Next::Nothing => return Ok(None),
        Next::Stop => json!({"kind": "stop"}),
        Next::Call(frame) => {
            let kind = if frame.name == "$config" { "config" } else { "call" };
            let mut told = came(kind, &frame.name, &frame);
            told["streams"] = (frame.flags & wire::STREAM != 0).into();
            told
        }
        Next::Message(frame) => {
            let mut told = came("message", &frame.name, &frame);
            told["missed"] = frame.number("missed").into();
            told
        }
        Next::Change(frame) => {
            let mut told = came("change", frame.header("key"), &frame);
            told["revision"] = frame.number("revision").into();
            told["deleted"] = (frame.header("op") == "delete").into();
            told
        }
        Next::Unwatched(prefix, frame) => {
            json!({"kind": "unwatched", "name": prefix, "payload": crate::bus::said(&frame)})
        }
    };
    object(&told).map(Some)
}

fn came(kind: &str, name: &str, frame: &Frame) -> serde_json::Value {
    let headers: HashMap<&String, &String> = frame.headers.iter().map(|(name, value)| (name, value)).collect();
    json!({
        "kind": kind,
        "name": name,
        "from": frame.header("from"),
        "payload": json_of(&frame.payload),
        "headers": headers,
    })
}

/// What came last, as bytes.
fn bytes() -> Outcome<Bytes> {
    let got = BUS.with_borrow(|bus| bus.got.payload.clone());
    Bytes::from_slice(got).map_err(|error| format!("Failed: {error}"))
}

fn write(level: usize, message: &str, fields: Value) -> Outcome<()> {
    let told: serde_json::Value = serde_json::from_str(&to_json(fields)?).map_err(|error| error.to_string())?;
    let fields = match told {
        serde_json::Value::Object(fields) => fields,
        serde_json::Value::Null => serde_json::Map::new(),
        _ => return Err("Malformed: the fields of a line are an object, or ()".to_owned()),
    };
    BUS.with_borrow(|bus| log::write(level, message, fields, bus.trace.as_ref()));
    Ok(())
}

/// Read `#{seconds, priority, headers}`, each of which may be left out.
fn options(with: Value) -> Outcome<With> {
    let told: serde_json::Value = serde_json::from_str(&to_json(with)?).map_err(|error| error.to_string())?;
    let mut options = With::default();
    let wrong = || "Malformed: what goes with a call is #{seconds, priority, headers}".to_owned();
    for (name, value) in told.as_object().ok_or_else(wrong)? {
        match name.as_str() {
            "seconds" => options.time = Some(span(value.as_f64().ok_or_else(wrong)?)),
            "priority" => {
                let place = PRIORITIES.iter().position(|one| Some(*one) == value.as_str());
                let place = place.ok_or_else(|| format!("Malformed: priority is one of {}", PRIORITIES.join(", ")));
                options.priority = Some(u8::try_from(place?).unwrap_or(2));
            }
            "headers" => {
                for (name, value) in value.as_object().ok_or_else(wrong)? {
                    options.headers.push((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned()));
                }
            }
            _ => return Err(wrong()),
        }
    }
    Ok(options)
}

/// Return a value's bytes: bytes as they are, everything else as JSON.
pub fn payload_of(value: Value) -> Outcome<Vec<u8>> {
    if let Ok(bytes) = value.borrow_ref::<Bytes>() {
        return Ok(bytes.as_slice().to_vec());
    }
    to_json(value).map(String::into_bytes)
}

/// Return a payload's value; nothing at all is `()`.
pub fn value_of(payload: &[u8]) -> Outcome<Value> {
    match std::str::from_utf8(payload) {
        Ok("") => from_json("null"),
        Ok(text) => from_json(text).map_err(|error| format!("Malformed: no JSON: {error}")),
        Err(_) => Err("Malformed: no JSON: not UTF-8".to_owned()),
    }
}

/// What is no JSON arrives as `()`, as does nothing at all: `bytes` has it.
pub fn json_of(payload: &[u8]) -> serde_json::Value {
    serde_json::from_slice(payload).unwrap_or(serde_json::Value::Null)
}

pub fn object(told: &serde_json::Value) -> Outcome<Value> {
    from_json(&told.to_string())
}

fn number_of(id: i64) -> Outcome<u32> {
    u32::try_from(id).map_err(|_| "Malformed: there is no such stream".to_owned())
}
