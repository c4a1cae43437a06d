//! The macros.

/// Tracks a variable: takes the value and gives a [`TrackedVariable`](crate::TrackedVariable), which derefs to it. The name is
/// the text of the expression.
///
/// ```
/// use memscope_rs::track_var;
///
/// let my_vec = vec![1, 2, 3];
/// let tracked_vec = track_var!(my_vec);
/// assert_eq!(tracked_vec.iter().sum::<i32>(), 6);
/// assert_eq!(tracked_vec.variable_name(), Some("my_vec"));
/// ```
#[macro_export]
macro_rules! track_var {
    ($value:expr $(,)?) => {{
        static SITE: $crate::Site = $crate::Site::new(
            ::core::stringify!($value),
            ::core::module_path!(),
            ::core::file!(),
            ::core::line!(),
            ::core::column!(),
        );
        $crate::TrackedVariable::at($value, &SITE)
    }};
}

/// Enters a scope: what this thread tracks while the guard lives has it as its `scope_name`.
///
/// ```
/// use memscope_rs::{get_global_tracker, track_scope, track_var};
///
/// let _scope = track_scope!("loading");
/// let _table = track_var!(vec![0_u8; 64]);
/// let table = &get_global_tracker().get_active_allocations()[0];
/// assert_eq!(table.scope_name.as_deref(), Some("loading"));
/// ```
#[macro_export]
macro_rules! track_scope {
    ($name:expr $(,)?) => {
        $crate::ScopeGuard::enter($name)
    };
}
