//! The channel of full buffers: crossbeam's bounded, lock-free queue.
//!
//! Neither side ever parks in it: a sender that finds a parked receiver would take a mutex and touch
//! thread-local storage. Who has to wait does so on a futex.

use crate::spool::buffer::Buffer;
use crossbeam_channel::{Receiver, Sender, bounded};

/// More than the pool's limit lets be on their way, but for thousands of threads.
const CAPACITY: usize = 1024;

/// Both ends.
#[derive(Debug)]
pub struct Channel {
    sender: Sender<Buffer>,
    receiver: Receiver<Buffer>,
}

impl Default for Channel {
    fn default() -> Self {
        let (sender, receiver) = bounded(CAPACITY);
        Self { sender, receiver }
    }
}

impl Channel {
    /// Sends a buffer; false where the channel is full.
    pub fn send(&self, buffer: Buffer) -> bool {
        self.sender.try_send(buffer).is_ok()
    }

    /// Buffers that are in it.
    pub fn waiting(&self) -> usize {
        self.receiver.len()
    }

    /// Receives a buffer; `None` where there is none.
    pub fn receive(&self) -> Option<Buffer> {
        self.receiver.try_recv().ok()
    }
}
