//! Each hooked function: what the program did is what the snapshot says.

mod c {
    use memscope_tests::program;

    crate::cases! { program::c("calls", &[]), "nothing":
        malloc calloc free cfree malloc_usable_size
        realloc realloc_in_place realloc_of_null reallocarray
        memalign posix_memalign aligned_alloc valloc pvalloc realloc_of_aligned
        free_sized free_aligned_sized
    }
}

mod cxx {
    use memscope_tests::program;

    crate::cases! { program::cxx("new_forms", &["-std=c++17"]), "nothing":
        new new_array new_nothrow new_array_nothrow new_zero new_expression new_then_free
        delete_sized delete_array_sized delete_null
        new_aligned new_aligned_odd new_array_aligned new_aligned_nothrow new_array_aligned_nothrow
        delete_sized_aligned delete_array_sized_aligned
        handler_recovers
    }
}

/// An exception passes through the hooks, or is caught in the nothrow form; it is a block itself, so the baseline throws one
/// too.
mod exceptions {
    use memscope_tests::program;

    crate::cases! { program::cxx("new_forms", &["-std=c++17"]), "throws":
        bad_alloc aligned_bad_alloc nothrow_fails handler_gives_up
    }
}

/// The program's own operator new stands before libstdc++'s and is counted where it calls malloc.
mod replaced_operator_new {
    use memscope_tests::program;

    crate::cases! { program::cxx("replaced_new", &["-std=c++17"]), "nothing": replaced }
}

/// Rust's allocator; the baseline's argument is as long, because std copies it.
mod rust {
    use memscope_tests::program;

    crate::cases! { program::rust("std_alloc", &[]), "absent": blocks }
}
