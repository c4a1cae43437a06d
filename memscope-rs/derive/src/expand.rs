//! The implementation that the derive writes.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, Ident, Result, parse_quote};

/// `impl Trackable for` the type.
pub fn trackable(mut input: DeriveInput) -> Result<TokenStream> {
    let arms = match &input.data {
        Data::Struct(data) => vec![Arm::new(quote!(Self), &data.fields)?],
        Data::Enum(data) => {
            let arm = |variant: &syn::Variant| {
                let name = &variant.ident;
                Arm::new(quote!(Self::#name), &variant.fields)
            };
            data.variants.iter().map(arm).collect::<Result<_>>()?
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(&input.ident, "Trackable cannot be derived for a union"));
        }
    };
    // Each field is asked, so each field's type has to be trackable, whatever the parameters are.
    let types: Vec<_> = arms.iter().flat_map(|arm| &arm.types).cloned().collect();
    if !input.generics.params.is_empty() {
        let clause = input.generics.make_where_clause();
        for field in types {
            clause.predicates.push(parse_quote!(#field: ::memscope_rs::Trackable));
        }
    }
    Ok(implementation(&input, &arms))
}

fn implementation(input: &DeriveInput, arms: &[Arm]) -> TokenStream {
    let name = &input.ident;
    let (generics, arguments, clause) = input.generics.split_for_impl();
    let function = |expression: fn(&Ident) -> TokenStream, none: TokenStream, join: TokenStream| {
        let arms = arms.iter().map(|arm| arm.write(expression, &none, &join));
        quote!(match self { #(#arms,)* })
    };
    let first = quote!(::core::option::Option::None);
    let heap = function(
        |field| quote!(.or_else(|| ::memscope_rs::Trackable::get_heap_ptr(#field))),
        first.clone(),
        quote!(),
    );
    let block = function(
        |field| quote!(.or_else(|| ::memscope_rs::Trackable::get_block_ptr(#field))),
        first,
        quote!(),
    );
    let size = function(
        |field| quote!(::memscope_rs::Trackable::get_size_estimate(#field)),
        quote!(0_usize),
        quote!(+),
    );
    // A type without variants has no values: its matches have no arms, and need a place, not a reference.
    let value = if arms.is_empty() { quote!(match *self {}) } else { TokenStream::new() };
    let (heap, block, size) =
        if arms.is_empty() { (value.clone(), value.clone(), value) } else { (heap, block, size) };
    quote! {
        #[automatically_derived]
        impl #generics ::memscope_rs::Trackable for #name #arguments #clause {
            fn get_heap_ptr(&self) -> ::core::option::Option<usize> { #heap }
            fn get_size_estimate(&self) -> usize { #size }
            fn get_block_ptr(&self) -> ::core::option::Option<usize> { #block }
        }
    }
}

/// A variant, or the one shape of a struct.
struct Arm {
    pattern: TokenStream,
    /// Names that the pattern binds.
    bound: Vec<Ident>,
    types: Vec<syn::Type>,
}

impl Arm {
    fn new(path: TokenStream, fields: &Fields) -> Result<Self> {
        let mut bindings = Vec::new();
        let (mut bound, mut types) = (Vec::new(), Vec::new());
        for (at, field) in fields.iter().enumerate() {
            let name = format_ident!("field_{at}");
            let pattern = if is_skipped(field)? {
                quote!(_)
            } else {
                bound.push(name.clone());
                types.push(field.ty.clone());
                quote!(#name)
            };
            bindings.push(match &field.ident {
                Some(label) => quote!(#label: #pattern),
                None => pattern,
            });
        }
        let pattern = match fields {
            Fields::Named(_) => quote!(#path { #(#bindings),* }),
            Fields::Unnamed(_) => quote!(#path(#(#bindings),*)),
            Fields::Unit => path,
        };
        Ok(Self { pattern, bound, types })
    }

    fn write(
        &self,
        expression: fn(&Ident) -> TokenStream,
        none: &TokenStream,
        join: &TokenStream,
    ) -> TokenStream {
        let pattern = &self.pattern;
        let fields = self.bound.iter().map(expression);
        quote!(#pattern => #none #(#join #fields)*)
    }
}

/// Whether a field has `#[trackable(skip)]`.
fn is_skipped(field: &Field) -> Result<bool> {
    let mut skipped = false;
    let ours = |attribute: &&Attribute| attribute.path().is_ident("trackable");
    for attribute in field.attrs.iter().filter(ours) {
        attribute.parse_nested_meta(|meta| {
            skipped |= meta.path.is_ident("skip");
            if skipped { Ok(()) } else { Err(meta.error("`skip` is all that can be said here")) }
        })?;
    }
    Ok(skipped)
}
