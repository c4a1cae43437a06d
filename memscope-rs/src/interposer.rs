//! `libmemscope.so`, where the program runs with it: it is told the names of blocks.
#![allow(unsafe_code)]

use crate::sys;
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

type NameBlock = unsafe extern "C" fn(
    block: *const c_void,
    name: *const c_char,
    name_length: usize,
    type_name: *const c_char,
    type_length: usize,
    scope: *const c_char,
    scope_length: usize,
);

static NAME_BLOCK: OnceLock<Option<NameBlock>> = OnceLock::new();

/// Its function for names, looked up once.
#[inline]
fn name_block() -> Option<NameBlock> {
    *NAME_BLOCK.get_or_init(|| {
        let found = sys::symbol(c"memscope_name_block")?;
        // SAFETY: the symbol is libmemscope.so's function of this type.
        Some(unsafe { std::mem::transmute::<usize, NameBlock>(found) })
    })
}

/// True in a program that runs with `libmemscope.so`.
#[inline]
pub fn is_there() -> bool {
    name_block().is_some()
}

/// Names the block that begins at an address and is live.
pub fn name(block: usize, name: &str, type_name: &str, scope: &str) {
    let Some(function) = name_block() else { return };
    // SAFETY: the three texts are readable; the block's address is a mere number to the function.
    unsafe {
        function(
            block as *const c_void,
            name.as_ptr().cast(),
            name.len(),
            type_name.as_ptr().cast(),
            type_name.len(),
            scope.as_ptr().cast(),
            scope.len(),
        );
    }
}
