//! The channel of full buffers: crossbeam's bounded, lock-free queue.
//!
//! Neither side ever parks in it: a sender that finds a parked receiver would take a mutex and touch
//! thread-local storage. Who has to wait does so on a futex.

#[cfg(loom)]
use self::model::{Receiver, Sender, bounded};
use crate::spool::buffer::Buffer;
#[cfg(not(loom))]
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

/// Stands for crossbeam's queue in a model, and orders no more than it promises: what a sender did comes before
/// what the receiver of its buffer does.
#[cfg(loom)]
mod model {
    use loom::sync::atomic::{AtomicBool, Ordering};
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// Messages that a model sends at most.
    const SLOTS: usize = 16;

    #[derive(Debug)]
    struct Queue<T> {
        waiting: VecDeque<(T, usize)>,
        sent: usize,
    }

    /// loom's part: what orders each message's sender and receiver.
    type Order = Rc<[AtomicBool; SLOTS]>;
    type Shared<T> = Rc<RefCell<Queue<T>>>;

    #[derive(Debug)]
    pub struct Sender<T>(Shared<T>, Order, usize);
    #[derive(Debug)]
    pub struct Receiver<T>(Shared<T>, Order);

    pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        let queue = Rc::new(RefCell::new(Queue { waiting: VecDeque::new(), sent: 0 }));
        let order = Rc::new(core::array::from_fn(|_| AtomicBool::new(false)));
        (Sender(Rc::clone(&queue), Rc::clone(&order), capacity), Receiver(queue, order))
    }

    impl<T> Sender<T> {
        pub fn try_send(&self, message: T) -> Result<(), T> {
            if self.0.borrow().waiting.len() >= self.2 {
                return Err(message);
            }
            let slot = self.0.borrow().sent;
            self.0.borrow_mut().sent += 1;
            self.1[slot].store(true, Ordering::Release);
            self.0.borrow_mut().waiting.push_back((message, slot));
            Ok(())
        }
    }

    impl<T> Receiver<T> {
        pub fn len(&self) -> usize {
            self.0.borrow().waiting.len()
        }

        pub fn try_recv(&self) -> Result<T, ()> {
            let (message, slot) = self.0.borrow_mut().waiting.pop_front().ok_or(())?;
            // A read and write sees the latest value, as one who has found the message does.
            assert!(self.1[slot].swap(false, Ordering::Acquire), "it was sent");
            Ok(message)
        }
    }
}
