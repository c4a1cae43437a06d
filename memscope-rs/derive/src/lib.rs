//! `#[derive(Trackable)]` for `memscope-rs`, which re-exports it.
#![forbid(unsafe_code)]

mod expand;

use proc_macro::TokenStream;

/// Derives `memscope_rs::Trackable` for a struct or an enum whose fields are `Trackable`.
///
/// The heap memory is that of the first field that has any; the sizes of the fields add up. A field with
/// `#[trackable(skip)]` is left out and needs not be `Trackable`:
///
/// ```
/// use memscope_rs::Trackable;
///
/// struct Handle;
///
/// #[derive(Trackable)]
/// enum Message<T> {
///     Text(String),
///     Data { bytes: Vec<T>, #[trackable(skip)] _handle: Handle },
///     Nothing,
/// }
///
/// let message = Message::Data { bytes: vec![1_u16, 2], _handle: Handle };
/// assert_eq!(message.get_size_estimate(), 4);
/// assert_eq!(Message::<u8>::Nothing.get_heap_ptr(), None);
/// # let _ = Message::<u8>::Text(String::new());
/// ```
#[proc_macro_derive(Trackable, attributes(trackable))]
pub fn trackable(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::trackable(input).unwrap_or_else(|error| error.into_compile_error()).into()
}
