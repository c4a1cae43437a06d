//! Plain values: no heap memory, but lifetimes.

use super::Trackable;

macro_rules! plain {
    ($($(#[$attribute:meta])* $({$($generics:tt)*})? $type:ty;)*) => {$(
        $(#[$attribute])*
        impl $(<$($generics)*>)? Trackable for $type {
            #[inline]
            fn get_heap_ptr(&self) -> Option<usize> {
                None
            }
            #[inline]
            fn get_size_estimate(&self) -> usize {
                size_of::<Self>()
            }
        }
    )*};
}

plain! {
    ();
    bool;
    char;
    u8;
    u16;
    u32;
    u64;
    u128;
    usize;
    i8;
    i16;
    i32;
    i64;
    i128;
    isize;
    f32;
    f64;
    std::num::NonZeroU8;
    std::num::NonZeroU16;
    std::num::NonZeroU32;
    std::num::NonZeroU64;
    std::num::NonZeroU128;
    std::num::NonZeroUsize;
    std::num::NonZeroI8;
    std::num::NonZeroI16;
    std::num::NonZeroI32;
    std::num::NonZeroI64;
    std::num::NonZeroI128;
    std::num::NonZeroIsize;
    std::sync::atomic::AtomicBool;
    std::sync::atomic::AtomicU8;
    std::sync::atomic::AtomicU16;
    std::sync::atomic::AtomicU32;
    std::sync::atomic::AtomicU64;
    std::sync::atomic::AtomicUsize;
    std::sync::atomic::AtomicI8;
    std::sync::atomic::AtomicI16;
    std::sync::atomic::AtomicI32;
    std::sync::atomic::AtomicI64;
    std::sync::atomic::AtomicIsize;
    std::time::Duration;
    std::time::Instant;
    std::time::SystemTime;
    std::net::IpAddr;
    std::net::Ipv4Addr;
    std::net::Ipv6Addr;
    std::net::SocketAddr;
    std::net::SocketAddrV4;
    std::net::SocketAddrV6;
    std::cmp::Ordering;
    std::thread::ThreadId;
    std::alloc::Layout;
    std::any::TypeId;
    std::ops::RangeFull;
    std::fs::File;
    std::net::TcpStream;
    std::net::TcpListener;
    std::net::UdpSocket;
    {T: ?Sized} std::marker::PhantomData<T>;
    {T: ?Sized} *const T;
    {T: ?Sized} *mut T;
    {T} std::ops::Range<T>;
    {T} std::ops::RangeInclusive<T>;
    {T} std::ops::RangeFrom<T>;
    {T} std::ops::RangeTo<T>;
    {T} std::ops::RangeToInclusive<T>;
    {T} std::ops::Bound<T>;
    {T} std::sync::mpsc::SyncSender<T>;
    {T} std::sync::mpsc::Receiver<T>;
    {T} std::thread::JoinHandle<T>;
    {R} fn() -> R;
    {A, R} fn(A) -> R;
    {A, B, R} fn(A, B) -> R;
    {A, B, C, R} fn(A, B, C) -> R;
}
