//! Frames of the bus, as docs/wire.md has them: to bytes and back.

pub const HELLO: u8 = 1;
pub const CALL: u8 = 3;
pub const ANSWER: u8 = 4;
pub const ERROR: u8 = 5;
pub const CANCEL: u8 = 6;
pub const ITEM: u8 = 7;
pub const CREDIT: u8 = 8;
pub const PUBLISH: u8 = 9;
pub const SUBSCRIBE: u8 = 10;
pub const MESSAGE: u8 = 12;

/// Flag of a call: items may go both ways.
pub const STREAM: u8 = 1;
/// Flag of an item: the caller sends no more.
pub const LAST: u8 = 2;

const HEAD: usize = 20;
const NAME_LIMIT: usize = 255;
const HEADERS_LIMIT: usize = 4096;
pub const PAYLOAD_LIMIT: usize = 1 << 20;

/// One message.
#[derive(Clone, Default)]
pub struct Frame {
    pub kind: u8,
    pub priority: u8,
    pub flags: u8,
    pub id: u32,
    pub deadline: u32,
    pub name: String,
    pub headers: Vec<(String, String)>,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, id: u32, name: &str, payload: &[u8]) -> Self {
        Self { kind, priority: 2, id, name: name.to_owned(), payload: payload.to_vec(), ..Self::default() }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Return the number in a header; 0 where there is none.
    pub fn number(&self, name: &str) -> u64 {
        self.header(name).parse().unwrap_or(0)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// Return its bytes; None where a field is larger than its limit.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut pairs = Vec::new();
        for (key, value) in &self.headers {
            pairs.push(u8::try_from(key.len()).ok()?);
            pairs.extend(key.as_bytes());
            pairs.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
            pairs.extend(value.as_bytes());
        }
        if self.name.len() > NAME_LIMIT || pairs.len() > HEADERS_LIMIT || self.payload.len() > PAYLOAD_LIMIT {
            return None;
        }
        let length = HEAD - 4 + self.name.len() + pairs.len() + self.payload.len();
        let mut bytes = Vec::with_capacity(4 + length);
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend([self.kind, self.priority, self.flags, 0]);
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.deadline.to_be_bytes());
        bytes.extend((self.name.len() as u16).to_be_bytes());
        bytes.extend((pairs.len() as u16).to_be_bytes());
        bytes.extend(self.name.as_bytes());
        bytes.extend(pairs);
        bytes.extend(&self.payload);
        Some(bytes)
    }
}

/// Take the first frame from what came in: None while it is not whole.
///
/// # Errors
/// These bytes are no frame.
pub fn decode(kept: &mut Vec<u8>) -> Result<Option<Frame>, ()> {
    if kept.len() < HEAD {
        return Ok(None);
    }
    let word = |at: usize| u32::from_be_bytes([kept[at], kept[at + 1], kept[at + 2], kept[at + 3]]);
    let short = |at: usize| usize::from(u16::from_be_bytes([kept[at], kept[at + 1]]));
    let length = word(0) as usize;
    if !(HEAD - 4..=HEAD - 4 + NAME_LIMIT + HEADERS_LIMIT + PAYLOAD_LIMIT).contains(&length) {
        return Err(());
    }
    if kept.len() < 4 + length {
        return Ok(None);
    }
    let (names, payload) = (HEAD + short(16), HEAD + short(16) + short(18));
    let frame = Frame {
        kind: kept[4],
        priority: kept[5],
        flags: kept[6],
        id: word(8),
        deadline: word(12),
        name: String::from_utf8_lossy(kept.get(HEAD..names).ok_or(())?).into_owned(),
        headers: headers(kept.get(names..payload).ok_or(())?).ok_or(())?,
        payload: kept.get(payload..4 + length).ok_or(())?.to_vec(),
    };
    kept.drain(..4 + length);
    Ok(Some(frame))
}

fn headers(mut pairs: &[u8]) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    while let Some((size, rest)) = pairs.split_first() {
        let (key, rest) = rest.split_at_checked(usize::from(*size))?;
        let (size, rest) = rest.split_at_checked(2)?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([size[0], size[1]])))?;
        found.push((String::from_utf8_lossy(key).into_owned(), String::from_utf8_lossy(value).into_owned()));
        pairs = rest;
    }
    Some(found)
}
