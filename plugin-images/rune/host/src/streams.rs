//! Streams and watches: items both ways, as far as the other side wants them. Stream 0 is the call being served.

use std::time::Duration;

use crate::bus::{said, Bus, Outcome, With};
use crate::flow::Flow;
use crate::wire::{self, Frame};

const NONE: &str = "Malformed: there is no such stream";
const UNWANTED: &str = "Cancelled: the caller went away";
const SERVED: &str = "Malformed: who is called ends a stream with its answer";

impl Bus {
    /// Call a method that answers with many items; return the stream's number.
    pub fn stream(&mut self, name: &str, payload: &[u8], with: With) -> Outcome<u32> {
        self.begin(name, payload, with, wire::STREAM, None)
    }

    /// Let `next` bring what changes in the store from now on; return the watch's number.
    pub fn watch(&mut self, prefix: &str) -> Outcome<u32> {
        let mut with = With::default();
        if !prefix.is_empty() {
            with.headers.push(("prefix".to_owned(), prefix.to_owned()));
        }
        let id = self.begin("$store.watch", b"", with, wire::STREAM, Some(prefix.to_owned()))?;
        self.grant(id);
        Ok(id)
    }

    /// Return a stream's next item, waiting for it; None when there are no more: the answer is what came last.
    pub fn item(&mut self, id: u32) -> Outcome<Option<Frame>> {
        loop {
            let flow = self.flow(id)?;
            if flow.watched.is_some() {
                return Err("Malformed: that is a watch: next brings its changes".to_owned());
            }
            if let Some(item) = flow.item() {
                self.got = item.clone();
                return Ok(Some(item));
            }
            if flow.is_over() {
                return self.over(id).map(|()| None);
            }
            self.grant(id);
            self.look_for(id)?;
        }
    }

    /// Send an item once the other side wants one; to a caller that takes none, keep it for the answer.
    pub fn give(&mut self, id: u32, payload: &[u8], flags: u8) -> Outcome<()> {
        if let Some(served) = self.served.as_mut().filter(|served| id == 0 && !served.streams()) {
            let room = "TooLarge: the caller takes no stream, and the list is larger than 1048576 bytes";
            return if served.collect(payload) { Ok(()) } else { Err(room.to_owned()) };
        }
        if payload.len() > wire::PAYLOAD_LIMIT {
            return Err("TooLarge: an item has 1048576 bytes at most".to_owned());
        }
        loop {
            let flow = self.flow(id)?;
            if flow.end.is_some() {
                self.over(id)?;
                return Err("Cancelled: the call has ended".to_owned());
            }
            if flow.credit > 0 {
                let item = flow.gives(payload, flags);
                return self.tell(&item);
            }
            self.look_for(id)?;
        }
    }

    /// Say that no more items go to whom is called.
    pub fn finish(&mut self, id: u32) -> Outcome<()> {
        if id == 0 {
            return Err(SERVED.to_owned());
        }
        self.give(id, b"", wire::LAST)
    }

    /// End a stream of ours, or a watch.
    pub fn close(&mut self, id: u32) -> Outcome<()> {
        if id == 0 {
            return Err(SERVED.to_owned());
        }
        let flow = self.flows.remove(&id).ok_or(NONE)?;
        self.arrivals.drop(id);
        match flow.end {
            Some(_) => Ok(()),
            None => self.tell(&flow.cancels()),
        }
    }

    /// Let the other side of a stream send more, if it may send little.
    pub(crate) fn grant(&mut self, id: u32) {
        if let Some(credit) = self.flow(id).ok().and_then(Flow::asks) {
            // What cannot be said now is over, and known to be with the next look.
            let _ = self.tell(&credit);
        }
    }

    fn flow(&mut self, id: u32) -> Outcome<&mut Flow> {
        if id != 0 {
            return self.flows.get_mut(&id).ok_or(NONE.to_owned());
        }
        match &mut self.served {
            Some(served) if served.unwanted => Err(UNWANTED.to_owned()),
            Some(served) => Ok(&mut served.flow),
            None => Err(NONE.to_owned()),
        }
    }

    /// Wait for anything, within the time of a stream.
    fn look_for(&mut self, id: u32) -> Outcome<()> {
        let left = self.flow(id)?.left();
        if id == 0 && left.is_some_and(|left| left.is_zero()) {
            return Err("DeadlineExceeded: nothing came in time".to_owned());
        }
        match self.look(left.map(|left| left.max(Duration::from_millis(1)))) {
            // What was lost is noted, and why is better known there.
            Err(why) if self.flow(id).is_ok_and(|flow| flow.end.is_none()) => Err(why),
            _ => Ok(()),
        }
    }

    /// Forget a stream that has ended, and keep its answer.
    fn over(&mut self, id: u32) -> Outcome<()> {
        let ended = self.flow(id)?.end.clone();
        let Some(end) = ended else {
            self.got = Frame::new(wire::ANSWER, 0, "", b"");
            return Ok(());
        };
        self.flows.remove(&id);
        if end.kind == wire::ERROR {
            return Err(said(&end));
        }
        self.got = end;
        Ok(())
    }
}
