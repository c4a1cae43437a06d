//! The walk: from the leaf, frame by frame, until the stack ends or the rest is proven to be the recorded one.
//!
//! What is special about a frame is told by its rule, and nearly all are plain: those are stepped here, by two loads and an
//! addition. The others leave the loop for [`Frame::step`].

use super::{
    Bp, Frame, Kind, Outer, Recorded, Rule, Signals, Stack, Step, Walk, Walked, first_difference, head, kind,
};

/// The first frame from `open` outwards that is not further in than this rsp.
///
/// # Safety
/// `open` is a recorded frame, or the sentinel before them, which no rsp exceeds.
#[inline(always)]
unsafe fn first_not_inside(mut open: *mut Recorded, sp: usize) -> *mut Recorded {
    // SAFETY: as promised; the sentinel ends it.
    unsafe {
        while (*open).sp < sp {
            open = open.sub(1);
        }
    }
    open
}

impl Stack {
    /// Walks from the leaf until the stack ends or joins the recorded one. `None` without memory.
    #[inline(always)]
    pub fn walk(
        &mut self,
        leaf: Frame,
        generation: u32,
        mut rules: impl FnMut(usize) -> Rule,
    ) -> Option<Walk> {
        if self.generation != generation || self.storage.capacity() == 0 {
            self.begin(generation)?;
        }
        self.bounds.enter(leaf.sp);
        // `open` is at the innermost recorded frame that can still be met, `put` at the last frame put down.
        let mut open = self.innermost();
        let mut put = self.storage.end();
        let mut full = open.wrapping_add(1).cast();
        let Frame { mut key, mut sp, mut bp, .. } = leaf;
        let (mut address, mut signals) = (leaf.rule_address(), Signals::default());
        loop {
            // SAFETY: `open` is a recorded frame or the sentinel.
            let met = unsafe {
                open = first_not_inside(open, sp);
                (*open).is_at(key, sp)
            };
            if met {
                match self.join(open, bp) {
                    None => return Some(Walk { last: put, outer: Outer::Recorded(open) }),
                    Some(outer) => open = outer,
                }
            }
            if put == full {
                (open, put) = self.grow(open, put)?;
                full = self.innermost().wrapping_add(1).cast();
            }
            let rule = rules(address);
            put = put.wrapping_sub(1);
            // SAFETY: there is room between the recorded frames and the walk's.
            unsafe { Walked::put(put, key, sp, rule) };
            // SAFETY: as above.
            let base = unsafe { self.base(put, rule, sp, bp) };
            if let Some((pc, cfa)) = Frame::plain_step(sp, base, rule, &self.bounds) {
                (key, address, sp, bp) = (head(kind::NODE, pc as u64), pc - 1, cfa, bp.of_caller(rule, cfa));
                continue;
            }
            let frame = Frame { key, sp, bp, context: signals.last };
            match frame.step(rule, &mut self.bounds, &mut rules) {
                Step::Caller(caller) if signals.pass(&caller) => {
                    open = self.doubt(&mut signals, open);
                    address = caller.rule_address();
                    Frame { key, sp, bp, .. } = caller;
                }
                end => return Some(Walk { last: put, outer: Outer::of(end) }),
            }
        }
    }

    /// The register that the rule of the frame at `put` counts from. rbp's value is put down where the rule computes with it.
    ///
    /// # Safety
    /// The frame's place is a walk's own.
    #[inline(always)]
    unsafe fn base(&mut self, put: *mut Walked, rule: Rule, sp: usize, bp: Bp) -> usize {
        if rule.is_rsp() {
            return sp;
        }
        let (value, base) = if rule.is_rbp() {
            let value = self.load(bp);
            (value, value)
        } else {
            self.rare_bp(rule, bp)
        };
        // SAFETY: as promised.
        unsafe { (*put).bp = value };
        base
    }

    /// rbp's value. Where it can't be read the walk ends, and any value will do: a CFA of less than rsp.
    #[inline(always)]
    pub(super) fn load(&mut self, bp: Bp) -> usize {
        bp.load(&mut self.bounds).unwrap_or(0)
    }

    /// The same for the rare rules that compute with it, and a base from which no plain step is possible.
    #[cold]
    #[inline(never)]
    fn rare_bp(&mut self, rule: Rule, bp: Bp) -> (usize, usize) {
        let computes = matches!(rule.kind(), Kind::Drap | Kind::Unknown | Kind::BeforeRoot);
        (if computes { self.load(bp) } else { 0 }, usize::MAX / 2)
    }

    /// More room; where `open` and `put` of a walk are then.
    #[cold]
    #[inline(never)]
    pub(super) fn grow(
        &mut self,
        open: *mut Recorded,
        put: *mut Walked,
    ) -> Option<(*mut Recorded, *mut Walked)> {
        // SAFETY: both point into the storage.
        let (open, walked) = unsafe {
            (open.offset_from(self.storage.frames()), self.storage.end().offset_from_unsigned(put))
        };
        // SAFETY: the last recorded frame, or the sentinel, which has no words.
        let words = unsafe { (*self.innermost()).words() };
        self.storage.grow(self.count, words, walked)?;
        Some((self.storage.frames().wrapping_offset(open), self.storage.end().wrapping_sub(walked)))
    }

    /// The walk is in the state of this recorded frame, but for rbp. Compares that, if it matters, and
    /// all words further out. If one differs: the innermost recorded frame that does not lead through it.
    #[inline(always)]
    fn join(&mut self, met: *mut Recorded, bp: Bp) -> Option<*mut Recorded> {
        // SAFETY: a recorded frame.
        let frame = unsafe { &*met };
        if frame.needs_bp() && bp.load(&mut self.bounds) != Some(frame.bp) {
            return Some(met.wrapping_sub(1));
        }
        let words = self.storage.words().cast_const();
        // SAFETY: the walk is in the recorded frame's state, so its words are what the next steps read.
        let differs = unsafe { first_difference(words.add(frame.words())) };
        if differs < words {
            return None;
        }
        // SAFETY: recorded frames; the sentinel among them leads through no word.
        unsafe {
            let number = differs.offset_from_unsigned(words);
            let mut outer = met.sub(1);
            while (*outer).words() > number {
                outer = outer.sub(1);
            }
            Some(outer)
        }
    }
}
