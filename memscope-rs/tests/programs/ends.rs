//! Ends in the way that its first argument says, after tracking a few variables. The second argument is the path of
//! the export. Clock brackets of lifetimes go to standard output: `NAME AT_LEAST_NS AT_MOST_NS`.

use memscope_rs::{TrackedVariable, get_global_tracker, track_scope, track_var};
use std::cell::RefCell;
use std::hint::black_box;
use std::panic;
use std::process;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (end, path) = (arguments[0].as_str(), arguments.get(1).map(String::as_str));
    if end == "hook" {
        panic::set_hook(Box::new(|_| eprintln!("the hook that was there before")));
    }
    memscope_rs::init();
    if let Some(path) = path {
        memscope_rs::enable_auto_export(Some(path));
    }
    let kept = track_var!(vec![0_u8; 1000]);
    match end {
        "return" => drop(track_var!(String::from("dropped"))),
        "exit" => process::exit(3),
        "quick_exit" => quick_exit(),
        "panic" | "hook" => panic!("on purpose"),
        "caught" => caught(),
        "abort" => abort_on_panic(),
        "cannot_unwind" => cannot_unwind(),
        "thread" => assert!(thread::spawn(panicking_thread).join().is_err()),
        "signal" => wait_for_a_signal(),
        "places" => places(),
        "drop_panics" => drop_panics(),
        "fork" => fork(),
        "others_run" => others_run(),
        "brackets" => brackets(),
        "tasks" => tasks(),
        "none" => {}
        other => panic!("no such end: {other}"),
    }
    drop(kept);
}

fn quick_exit() -> ! {
    unsafe extern "C" {
        fn quick_exit(status: i32) -> !;
    }
    // SAFETY: no condition.
    unsafe { quick_exit(4) }
}

/// A panic that the program survives: what lived then lives on.
fn caught() {
    let survivor = track_var!(vec![1_u16; 50]);
    let result = panic::catch_unwind(|| {
        let _victim = track_var!(vec![2_u32; 25]);
        panic!("caught");
    });
    assert!(result.is_err());
    thread::sleep(Duration::from_millis(20));
    drop(survivor);
}

fn abort_on_panic() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        before(info);
        process::abort();
    }));
    let _alive = track_var!(vec![3_u64; 10]);
    panic!("with abort");
}

extern "C" fn cannot_unwind() {
    let _alive = track_var!(vec![3_u64; 10]);
    panic!("in a function that cannot unwind");
}

fn panicking_thread() {
    let _in_thread = track_var!(String::from("in the thread"));
    panic!("in a thread");
}

fn wait_for_a_signal() {
    memscope_rs::export_on_signals().expect("signals are watched");
    println!("ready");
    thread::sleep(Duration::from_secs(60));
    unreachable!("the signal ends it");
}

/// Variables in a thread-local, in statics, forgotten, and dropped by a destructor of a thread-local.
fn places() {
    thread_local! {
        static LOCAL: RefCell<Vec<TrackedVariable<String>>> = const { RefCell::new(Vec::new()) };
    }
    static STATIC: OnceLock<TrackedVariable<Vec<u8>>> = OnceLock::new();
    static SHARED: Mutex<Option<TrackedVariable<u64>>> = Mutex::new(None);

    struct TracksInDrop;
    impl Drop for TracksInDrop {
        fn drop(&mut self) {
            drop(track_var!(String::from("tracked in a destructor")));
        }
    }
    thread_local! {
        static DESTRUCTOR: TracksInDrop = const { TracksInDrop };
    }

    STATIC.get_or_init(|| TrackedVariable::new(vec![0; 10], "in_static"));
    *SHARED.lock().unwrap() = Some(TrackedVariable::new(5, "in_mutex"));
    std::mem::forget(TrackedVariable::new(vec![0_u8; 20], "forgotten"));
    thread::spawn(|| {
        DESTRUCTOR.with(|_| {});
        LOCAL.with_borrow_mut(|local| local.push(TrackedVariable::new("x".into(), "in_thread_local")));
    })
    .join()
    .unwrap();
    LOCAL.with_borrow_mut(|local| local.push(TrackedVariable::new("y".into(), "in_main_thread_local")));
}

fn drop_panics() {
    #[derive(memscope_rs::Trackable)]
    struct PanicsInDrop(Vec<u8>);
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let result = panic::catch_unwind(|| {
        let guarded = PanicsInDrop(vec![0; 30]);
        drop(track_var!(guarded));
    });
    assert!(result.is_err());
}

/// A forked child's end is not the program's: it exports nothing.
fn fork() {
    // SAFETY: the program has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let _in_child = track_var!(vec![0_u8; 7777]);
        process::exit(0);
    }
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    println!("child {status}");
}

/// The program ends while other threads track.
fn others_run() {
    for _ in 0..3 {
        thread::spawn(|| {
            loop {
                for _ in 0..50 {
                    drop(black_box(track_var!(vec![0_u8; 10])));
                }
                // Other threads, that of the export too, are to have a processor as well.
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    thread::sleep(Duration::from_millis(10));
    process::exit(0);
}

fn brackets() {
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            thread::spawn(move || {
                let _scope = track_scope!("bracketed");
                for round in 0..25_u64 {
                    bracket(&format!("v{thread}_{round}"), Duration::from_micros(round * round * 40));
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    // Tracked in one thread, dropped in another.
    let before = Instant::now();
    let moved = TrackedVariable::new(vec![1_u8; 64], "moved");
    let begun = Instant::now();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        let ending = Instant::now();
        drop(moved);
        say("moved", ending.duration_since(begun), before.elapsed());
    })
    .join()
    .unwrap();
}

fn bracket(name: &str, pause: Duration) {
    let before = Instant::now();
    let variable = TrackedVariable::new(vec![0_u32; 8], name.to_owned());
    let begun = Instant::now();
    thread::sleep(pause);
    let ending = Instant::now();
    drop(variable);
    say(name, ending.duration_since(begun), before.elapsed());
}

fn say(name: &str, at_least: Duration, at_most: Duration) {
    println!("{name} {} {}", at_least.as_nanos(), at_most.as_nanos());
}

/// A future that moves between threads keeps its variables' identity.
fn tasks() {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Wake, Waker};

    struct Nothing;
    impl Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    struct Yield(bool);
    impl Future for Yield {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
        }
    }
    async fn task() {
        let across = track_var!(vec![9_u8; 90]);
        let before = across.tracked_ptr();
        Yield(false).await;
        assert_eq!(across.tracked_ptr(), before);
    }
    let mut task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task());
    loop {
        let polled = thread::spawn(move || {
            let ready =
                task.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Nothing)))).is_ready();
            (task, ready)
        });
        let (back, ready) = polled.join().unwrap();
        if ready {
            break;
        }
        task = back;
    }
    assert!(
        get_global_tracker()
            .get_allocation_history()
            .iter()
            .any(|v| v.var_name.as_deref() == Some("vec![9_u8; 90]"))
    );
}
