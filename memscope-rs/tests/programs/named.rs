//! A program whose variables' blocks get names in a recording. Prints where each block is: `name address size`.

use memscope_rs::{Trackable, track_scope, track_var};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

fn say(name: &str, address: usize, size: usize) {
    println!("{name} {address} {size}");
}

fn main() {
    memscope_rs::init();
    match std::env::args().nth(1).as_deref() {
        Some("kill") => killed(),
        Some("fork") => forked(),
        Some("threads") => threads(),
        Some("export") => {
            memscope_rs::enable_auto_export(None);
            vectors();
        }
        _ => {
            vectors();
            owners();
            maps();
            given_away();
        }
    }
}

fn vectors() {
    let my_vec = vec![1_u64; 1001];
    let mut tracked_vec = track_var!(my_vec);
    say("first", tracked_vec.as_ptr() as usize, tracked_vec.capacity() * 8);
    for number in 0..5000 {
        tracked_vec.push(number);
    }
    tracked_vec.shrink_to_fit();
    // A block of its own, not by `realloc`.
    *tracked_vec = Vec::with_capacity(1777);
    say("replaced", tracked_vec.as_ptr() as usize, tracked_vec.capacity() * 8);
    drop(tracked_vec);
    let unnamed = vec![1_u64; 2003];
    say("unnamed", unnamed.as_ptr() as usize, unnamed.capacity() * 8);
}

fn owners() {
    let _scope = track_scope!("owners");
    let text = String::from_utf8(vec![b'x'; 3001]).unwrap();
    let text = track_var!(text);
    let boxed = Box::new([7_u8; 3011]);
    let boxed = track_var!(boxed);
    let shared = track_var!(Rc::new([7_u8; 3019]));
    let second = shared.clone();
    let atomic = track_var!(Arc::new([7_u8; 3041]));
    let option = track_var!(Some(vec![7_u8; 3037]));
    drop(shared);
    assert_eq!(text.len() + boxed.len() + second.len() + atomic.len(), 3001 + 3011 + 3019 + 3041);
    assert!(option.is_some());
}

#[derive(Trackable)]
struct Session {
    id: u32,
    packets: Vec<u8>,
}

fn maps() {
    let mut map = track_var!(HashMap::new());
    for key in 0..20_000_u32 {
        map.insert(key, key);
    }
    let mut tree = track_var!(BTreeMap::new());
    tree.insert(1_u8, [1_u8; 700]);
    let mut ring = track_var!(VecDeque::with_capacity(3301));
    ring.extend([1_u8; 2000]);
    ring.drain(..500);
    let session = track_var!(Session { id: 1, packets: vec![1; 3307] });
    assert!(map.len() == 20_000 && tree.len() == 1 && ring.len() == 1500 && session.id == 1);
    assert_eq!(session.packets.len(), 3307);
}

/// Blocks keep the name of the variable that they belonged to, but don't hand it on.
fn given_away() {
    let gone = track_var!(vec![1_u8; 4001]);
    let mut vec = gone.into_inner();
    vec.resize(4099, 2);
    vec.shrink_to_fit();
    say("after into_inner", vec.as_ptr() as usize, vec.capacity());
    let mut taken = track_var!(vec![1_u8; 4111]);
    let mut other = std::mem::take(&mut *taken);
    *taken = vec![1; 4127];
    assert_eq!(taken.len(), 4127);
    other.resize(4201, 1);
    say("after take", other.as_ptr() as usize, other.capacity());
}

/// Blocks wander between threads and their addresses are used again at once: no name may stick to an address.
fn threads() {
    let (sender, receiver) = std::sync::mpsc::sync_channel(4);
    let consumer = std::thread::spawn(move || {
        for handed_over in receiver {
            let handed_over: Vec<u8> = handed_over;
            let consumed = track_var!(handed_over);
            assert!(!consumed.is_empty());
        }
    });
    for _ in 0..4_000 {
        let nameless = vec![1_u8; 5003];
        // Or the compiler leaves out what nobody looks at.
        drop(std::hint::black_box(nameless));
        let produced = track_var!(vec![1_u8; 5009]);
        drop(produced);
        sender.send(vec![1_u8; 5011]).unwrap();
    }
    drop(sender);
    consumer.join().unwrap();
}

fn killed() {
    let survivor = track_var!(vec![1_u8; 6007]);
    assert_eq!(survivor.len(), 6007);
    std::process::Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[allow(unsafe_code)]
fn forked() {
    let make = |size: usize| {
        let both = track_var!(vec![1_u8; size]);
        assert_eq!(both.len(), size);
    };
    make(7001);
    // SAFETY: the child only does what the parent has done as well, on its only thread.
    let child = unsafe { libc::fork() };
    make(7013);
    if child != 0 {
        // SAFETY: no status is wanted.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
}
