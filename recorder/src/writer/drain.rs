//! The writer's work: what to take, and when.

use super::sink::Sink;
use super::{FINISH, RETIRE, RETIRED, STOPPED, Writer, losses};
use crate::process::{Phase, Process};
use crate::spool::buffer::Buffer;
use crate::start::end;
use crate::sync::atomic::Ordering;
use crate::sys::{file, futex, memory, process as os, time};
use core::time::Duration;
use memscope_shared::rhythm::{BATCH, POLL, TICK, TICKS_PER_SAMPLE};
use memscope_shared::spool as layout;

/// Most batches that are written before the thread looks at what else it is to do: busy threads can fill buffers as fast as
/// they are written.
const TURN: usize = 4;
/// How often what was left to a drainer is taken at most, where all of it is to be written.
const TURNS_LEFT: usize = 4;

/// The loop of our thread; gives the status to end it with.
pub fn serve(process: &'static Process, writer: &Writer) -> u32 {
    writer.runs();
    hold(writer, |sink| {
        if file::own_table(sink.descriptor()) {
            sink.moves_to_own_table();
        }
        false
    });
    let mut ticks = 0;
    let mut due = time::monotonic_ns() + TICK.as_nanos() as u64;
    loop {
        let seen = writer.calls.load(Ordering::SeqCst);
        let polls = writer.polls.load(Ordering::Relaxed) == 1;
        let one_more =
            || (polls || writer.has_enough()) && hold(writer, |sink| queued(process, writer, sink));
        let took_all = (0..TURN).any(|_| !one_more());
        if writer.look.swap(0, Ordering::SeqCst) == 1 {
            look_for_the_last_time(process, writer);
            writer.looked.store(1, Ordering::Release);
            futex::wake(&writer.looked, i32::MAX);
        }
        if is_stopped(process, writer) {
            return 0;
        }
        let now = time::monotonic_ns();
        if now >= due {
            due = now + TICK.as_nanos() as u64;
            ticks += 1;
            all_queued(writer, || hold(writer, |sink| queued(process, writer, sink)));
            hold(writer, |sink| {
                tick(process, sink, ticks);
                false
            });
            if let Some(status) = os::left_alone() {
                // The program's last thread has ended without `exit`: ours must not keep the process.
                look_for_the_last_time(process, writer);
                writer.state.store(STOPPED, Ordering::Release);
                return status;
            }
            continue;
        }
        if !took_all {
            continue;
        }
        writer.asleep.store(1, Ordering::SeqCst);
        let pause = Duration::from_nanos(due - now);
        futex::wait(&writer.calls, seen, if polls { pause.min(POLL) } else { pause });
        writer.asleep.store(0, Ordering::SeqCst);
    }
}

/// Does what is to be done before our thread ends, if it is to end.
fn is_stopped(process: &'static Process, writer: &Writer) -> bool {
    match writer.stop.load(Ordering::SeqCst) {
        RETIRE => {
            all_queued(writer, || hold(writer, |sink| queued(process, writer, sink)));
            hold(writer, |sink| {
                sink.sample_clocks(process);
                write_samples(process, sink);
                sink.leaves_own_table();
                false
            });
            writer.state.store(RETIRED, Ordering::Release);
            true
        }
        FINISH => {
            let complete = hold(writer, |sink| finish(process, writer, sink));
            writer.state.store(STOPPED, Ordering::Release);
            writer.stopped.store(if complete { 1 } else { 2 }, Ordering::Release);
            futex::wake(&writer.stopped, i32::MAX);
            true
        }
        _ => false,
    }
}

fn look_for_the_last_time(process: &'static Process, writer: &Writer) {
    hold(writer, |sink| {
        last_look(process, sink);
        false
    });
}

fn hold(writer: &Writer, work: impl FnOnce(&mut Sink) -> bool) -> bool {
    writer.hold().is_some_and(|held| work(held.sink))
}

/// Writes by batches what is queued by now; what comes meanwhile waits. `one` writes a batch, and says whether there was
/// any.
fn all_queued(writer: &Writer, mut one: impl FnMut() -> bool) {
    let batches = match writer.channel() {
        Some(channel) if !writer.left.is_on() => channel.waiting().div_ceil(BATCH),
        _ => TURNS_LEFT,
    };
    for _ in 0..batches {
        if !one() {
            return;
        }
    }
}

/// Writes what threads have recorded by now, wherever it is; true where that worked.
fn everything(process: &'static Process, writer: &Writer, sink: &mut Sink) -> bool {
    // A part-filled buffer can be handed over before it is looked at, while the one behind it is only written after it. So
    // a buffer that wasn't in the queue at first is there the second time.
    for _ in 0..2 {
        all_queued(writer, || queued(process, writer, sink));
        if !partial(process, sink) {
            return false;
        }
    }
    true
}

/// Writes a batch of what is queued; true where something was.
pub fn queued(process: &'static Process, writer: &Writer, sink: &mut Sink) -> bool {
    // Threads go on while the process ends, and hand over what comes too late.
    if sink.failed() || sink.is_finished() {
        return false;
    }
    if writer.left.is_on() {
        return left(process, writer, sink);
    }
    let Some(channel) = writer.channel() else { return false };
    let mut batch = [None; BATCH];
    let mut count = 0;
    for slot in &mut batch {
        *slot = channel.receive();
        if slot.is_none() {
            break;
        }
        count += 1;
    }
    let batch = &mut batch[..count];
    // Stable: the buffers of one stream stay in their order.
    batch.sort_by_key(|buffer| buffer.map_or(0, |b: Buffer| b.header().stream.load(Ordering::Relaxed)));
    for group in batch.chunk_by(|a, b| stream(*a) == stream(*b)) {
        let mut buffers = [None; BATCH];
        buffers[..group.len()].copy_from_slice(group);
        if !sink.failed() {
            take(process, sink, &buffers[..group.len()]);
        }
        if sink.failed() {
            // What is not written stays in the spool, where `analyze` finds it.
            losses::count(process, sink, group.iter().flatten().copied());
        } else {
            group.iter().flatten().for_each(|buffer| give_back(process, *buffer));
        }
    }
    count > 0 && !sink.failed()
}

/// Writes what was left to a drainer, as far as it goes on where the trace ends; true where something was.
fn left(process: &'static Process, writer: &Writer, sink: &mut Sink) -> bool {
    let mut all: Vec<_> = writer.left.take_all().map(Some).collect();
    all.sort_by_key(|buffer| {
        (stream(*buffer), buffer.map_or(0, |b| b.header().position.load(Ordering::Relaxed)))
    });
    let mut given = 0;
    for group in all.chunk_by(|a, b| stream(*a) == stream(*b)) {
        for batch in group.chunks(BATCH) {
            if !sink.failed()
                && let Err(error) = sink.take_following(batch)
            {
                end::end_recording(process, end::Reason::WriteFailed(error));
            }
            for buffer in batch.iter().flatten() {
                if sink.has(*buffer) {
                    give_back(process, *buffer);
                    given += 1;
                } else {
                    // The one before it is in another thread's hands.
                    writer.left.push(*buffer);
                }
            }
        }
    }
    writer.gave_back(process, given);
    given > 0
}

fn stream(buffer: Option<Buffer>) -> u64 {
    buffer.map_or(0, |buffer| buffer.header().stream.load(Ordering::Relaxed))
}

/// Writes what a run of buffers of one stream holds.
fn take(process: &'static Process, sink: &mut Sink, buffers: &[Option<Buffer>]) {
    if let Err(error) = sink.take(buffers) {
        end::end_recording(process, end::Reason::WriteFailed(error));
    }
}

fn give_back(process: &Process, buffer: Buffer) {
    if buffer.header().private.load(Ordering::Relaxed) == 0 {
        return process.pool.give(buffer);
    }
    if process.spool().word(layout::header::BUFFERS).is_some_and(|buffers| buffers.get() > 0) {
        // SAFETY: the buffer was queued, so its thread has left it, and we are the only reader.
        let _ = unsafe { memory::unmap(buffer.address() as *mut u8, layout::BUFFER_BYTES) };
        process.pool.gone();
    } else {
        process.pool.give(buffer);
    }
}

/// Writes the full buffers of the early phase.
pub fn early(process: &'static Process, sink: &mut Sink) {
    // Not set to 0: a thread that is about to put one aside has its place.
    let count = process.early_count.fetch_add(0, Ordering::AcqRel);
    for slot in process.early.iter().take(count) {
        // SAFETY: only addresses of buffers (or 0) are stored here.
        if let Some(buffer) = unsafe { Buffer::at(slot.swap(0, Ordering::AcqRel) as *mut u8) } {
            take(process, sink, &[Some(buffer)]);
            if !sink.failed() {
                give_back(process, buffer);
            }
        }
    }
    if count > process.early.len() {
        end::end_recording(process, end::Reason::EarlyOverflow);
    }
}

/// What is done from time to time.
fn tick(process: &'static Process, sink: &mut Sink, ticks: u64) {
    if sink.failed() || process.phase() != Phase::Recording {
        return;
    }
    partial(process, sink);
    sink.sample_memory();
    if ticks.is_multiple_of(TICKS_PER_SAMPLE) {
        sink.sample_names(process);
        sink.sample_clocks(process);
    }
    write_samples(process, sink);
}

/// Writes what the sink has sampled.
fn write_samples(process: &'static Process, sink: &mut Sink) {
    if let Err(error) = sink.write_samples() {
        end::end_recording(process, end::Reason::WriteFailed(error));
    }
}

/// What the last moment of a process adds whose trace somebody else completes: a look at memory, clocks and names,
/// and what lies in memory that dies with the process.
pub fn last_look(process: &'static Process, sink: &mut Sink) {
    look(process, sink);
    if sink.failed() {
        losses::count_all(process, sink);
    }
}

fn look(process: &'static Process, sink: &mut Sink) {
    if sink.failed() || process.phase() != Phase::Recording {
        return;
    }
    sink.sample_memory();
    sink.sample_names(process);
    sink.sample_clocks(process);
    if sink.write_samples().is_err() {
        // The records are in the spool all the same; who completes the trace says what is wrong with it.
        return;
    }
    let since = process.spool().word(layout::header::PRIVATE_SINCE).filter(|word| word.get() != 0);
    if let Some(since) = since
        && everything(process, &process.writer, sink)
    {
        since.set(0);
    }
}

/// Writes what part-filled buffers hold; true where that worked.
pub fn partial(process: &'static Process, sink: &mut Sink) -> bool {
    for state in process.each_state() {
        if let Some(buffer) = state.filling() {
            if sink.failed() {
                return false;
            }
            if let Err(error) = sink.take_part(buffer) {
                end::end_recording(process, end::Reason::WriteFailed(error));
            }
        }
    }
    !sink.failed()
}

/// Writes everything and the trace's end; true where that worked.
pub fn finish(process: &'static Process, writer: &Writer, sink: &mut Sink) -> bool {
    // Without the files of its notes, the rest is for completion.
    if !everything(process, writer, sink) {
        losses::count_all(process, sink);
        return false;
    }
    if !end::make_files_of_notes() {
        return false;
    }
    match sink.finish(process) {
        Ok(()) => true,
        Err(error) => {
            end::end_recording(process, end::Reason::WriteFailed(error));
            false
        }
    }
}
