//! Hooks of the functions by which a program gives a thread a stack without a guard page: below such a stack anything may
//! lie, and go again ([`memscope_recorder::program::stack::bounds`]).

use crate::list::Hook;
use crate::real;
use core::ffi::c_int;
use memscope_recorder::program::stack::bounds;

type SetStack = unsafe extern "C" fn(usize, usize, usize) -> c_int;

unsafe fn pass_on(hook: Hook, attributes: usize, a: usize, b: usize) -> c_int {
    real::ready();
    // SAFETY: it takes at most as many arguments, all of them numbers or pointers.
    match unsafe { real::next::<SetStack>(hook) } {
        // SAFETY: the arguments are the program's.
        Some(next) => unsafe { next(attributes, a, b) },
        None => libc::ENOSYS,
    }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn pthread_attr_setstack(attributes: usize, start: usize, size: usize) -> c_int {
    bounds::may_lack_guards();
    // SAFETY: as promised by the caller.
    unsafe { pass_on(Hook::PthreadAttrSetstack, attributes, start, size) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn pthread_attr_setstackaddr(attributes: usize, end: usize) -> c_int {
    bounds::may_lack_guards();
    // SAFETY: as promised by the caller.
    unsafe { pass_on(Hook::PthreadAttrSetstackaddr, attributes, end, 0) }
}

/// # Safety
/// As for the function.
pub unsafe extern "C" fn pthread_attr_setguardsize(attributes: usize, size: usize) -> c_int {
    if size == 0 {
        bounds::may_lack_guards();
    }
    // SAFETY: as promised by the caller.
    unsafe { pass_on(Hook::PthreadAttrSetguardsize, attributes, size, 0) }
}
