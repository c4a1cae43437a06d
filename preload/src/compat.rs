//! Old names for functions that Rust's standard library takes from libc.
//!
//! glibc 2.33 and 2.34 gave some functions new symbol versions without changing them. Linked plainly, the library
//! would not load on glibc 2.31. So these hidden definitions stand in front of them and jump to the old
//! versions, which every later glibc keeps. The pthread functions are weak: before 2.34 they lie in
//! libpthread, which a program without threads doesn't load (and then nothing calls them).

use core::arch::global_asm;

global_asm!(
    ".symver memscope_old_fxstat64, __fxstat64@GLIBC_2.2.5",
    ".symver memscope_old_xstat64, __xstat64@GLIBC_2.2.5",
    ".symver memscope_old_key_create, pthread_key_create@GLIBC_2.2.5",
    ".symver memscope_old_key_delete, pthread_key_delete@GLIBC_2.2.5",
    ".symver memscope_old_setspecific, pthread_setspecific@GLIBC_2.2.5",
    ".weak memscope_old_key_create",
    ".weak memscope_old_key_delete",
    ".weak memscope_old_setspecific",
    ".pushsection .text.memscope_compat, \"ax\", @progbits",
    ".macro memscope_jump name, target",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name, @function",
    "\\name:",
    ".cfi_startproc",
    "endbr64",
    "jmp \\target@PLT",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    // `fstat64(fd, buffer)` is `__fxstat64(1, fd, buffer)`, `stat64` likewise.
    ".macro memscope_stat name, target",
    ".globl \\name",
    ".hidden \\name",
    ".type \\name, @function",
    "\\name:",
    ".cfi_startproc",
    "endbr64",
    "mov rdx, rsi",
    "mov rsi, rdi",
    "mov edi, 1",
    "jmp \\target@PLT",
    ".cfi_endproc",
    ".size \\name, . - \\name",
    ".endm",
    "memscope_stat fstat64, memscope_old_fxstat64",
    "memscope_stat stat64, memscope_old_xstat64",
    "memscope_jump pthread_key_create, memscope_old_key_create",
    "memscope_jump pthread_key_delete, memscope_old_key_delete",
    "memscope_jump pthread_setspecific, memscope_old_setspecific",
    ".purgem memscope_jump",
    ".purgem memscope_stat",
    ".popsection",
);
