//! The command line.

use std::time::Duration;

pub const USAGE: &str = "\
usage: crucible-rune [--fuel N] [--memory BYTES] [--time SECONDS] [--root DIR] [--] SCRIPT [ARGUMENT...]
  --fuel N        end after N instructions of the script (exit code 71)
  --memory BYTES  let the script hold BYTES and no more (72)
  --time SECONDS  end after SECONDS, asleep or not (73)
  --root DIR      look for /plugin, /config and /tmp in DIR
What is not given is not limited.";

/// What to run, and within which limits; none where there is None.
#[derive(Default)]
pub struct Options {
    pub fuel: Option<usize>,
    pub memory: Option<usize>,
    pub time: Option<Duration>,
    pub root: Option<String>,
    pub script: String,
    pub arguments: Vec<String>,
}

/// Read the words after the program's name.
///
/// # Errors
/// What is wrong with them, in one line.
pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = words.into_iter();
    let script = loop {
        let Some(word) = words.next() else { break None };
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        match word.as_str() {
            "--fuel" => options.fuel = Some(whole(&word, &value()?)?),
            "--memory" => options.memory = Some(whole(&word, &value()?)?),
            "--time" => options.time = Some(seconds(&word, &value()?)?),
            "--root" => options.root = Some(value()?),
            "--" => break words.next(),
            _ if word.starts_with('-') => return Err(format!("unknown option {word}")),
            _ => break Some(word),
        }
    };
    options.script = script.ok_or("no script is named")?;
    options.arguments = words.collect();
    Ok(options)
}

fn whole(name: &str, value: &str) -> Result<usize, String> {
    value.parse().map_err(|_| format!("{name} {value}: not a whole number"))
}

fn seconds(name: &str, value: &str) -> Result<Duration, String> {
    let number = value.parse::<f64>().ok().filter(|number| *number > 0.0);
    number
        .and_then(|number| Duration::try_from_secs_f64(number).ok())
        .ok_or(format!("{name} {value}: not a number of seconds"))
}
