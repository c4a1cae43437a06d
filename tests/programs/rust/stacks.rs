//! Stacks with Rust names: modules, generics, closures, inlined std.

mod shop {
    pub trait Fill {
        fn fill(&self, n: usize) -> Vec<u8>;
    }
    pub struct Basket;
    impl Fill for Basket {
        #[inline(never)]
        fn fill(&self, n: usize) -> Vec<u8> {
            std::hint::black_box(Vec::with_capacity(n))
        }
    }
    #[inline(never)]
    pub fn sell<T: Fill>(thing: &T, n: usize) -> usize {
        std::hint::black_box(thing.fill(n)).capacity()
    }
}

#[inline(never)]
fn calls(f: impl Fn(usize) -> Box<[u8; 10009]>) -> usize {
    std::hint::black_box(f(1)).len()
}

fn main() {
    let sold = shop::sell(&shop::Basket, 10007);
    let called = calls(|n| std::hint::black_box(Box::new([n as u8; 10009])));
    std::hint::black_box((sold, called));
}
