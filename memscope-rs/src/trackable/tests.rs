//! Each type's answers.

use super::Trackable;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::*;
use std::ffi::{CString, OsString};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

/// (heap pointer, block pointer, size) of a value.
fn answers(value: &impl Trackable) -> (Option<usize>, Option<usize>, usize) {
    (value.get_heap_ptr(), value.get_block_ptr(), value.get_size_estimate())
}

#[test]
fn one_block_is_known_from_its_start() {
    let vec = Vec::<u32>::with_capacity(7);
    assert_eq!(answers(&vec), (Some(vec.as_ptr() as usize), Some(vec.as_ptr() as usize), 28));
    let text = String::from("hello");
    assert_eq!(answers(&text), (Some(text.as_ptr() as usize), Some(text.as_ptr() as usize), 5));
    let boxed = Box::new([1_u64; 4]);
    let at = &raw const *boxed as usize;
    assert_eq!(answers(&boxed), (Some(at), Some(at), 32));
    let slice: Box<[u16]> = vec![1, 2, 3].into();
    assert_eq!(answers(&slice).2, 6);
    let path = PathBuf::from("/a/b");
    assert_eq!(path.get_size_estimate(), path.capacity());
    assert!(path.get_heap_ptr().is_some() && OsString::from("x").get_heap_ptr().is_some());
    assert_eq!(CString::new("abc").unwrap().get_size_estimate(), 4);
    let heap: BinaryHeap<u8> = [3, 1].into();
    assert!(heap.get_heap_ptr().is_some());
}

#[test]
fn what_is_empty_points_nowhere() {
    assert_eq!(answers(&Vec::<u8>::new()), (None, None, 0));
    assert_eq!(answers(&String::new()), (None, None, 0));
    assert_eq!(answers(&vec![(); 9]), (None, None, 0));
    assert_eq!(answers(&Box::new(())), (None, None, 0));
    assert_eq!(answers(&HashMap::<u8, u8>::new()), (None, None, 0));
    assert_eq!(answers(&BTreeMap::<u8, u8>::new()), (None, None, 0));
}

#[test]
fn collections_have_an_address_but_no_known_start() {
    let map: HashMap<u32, u64> = (0..100).map(|n| (n, 1)).collect();
    let (heap, block, size) = answers(&map);
    assert!(heap.is_some() && block.is_none() && size >= 100 * 16);
    let set: HashSet<u8> = (0..100).collect();
    assert!(set.get_heap_ptr().is_some() && set.get_size_estimate() >= 100);
    let tree: BTreeMap<u32, u64> = (0..100).map(|n| (n, 1)).collect();
    let (heap, block, size) = answers(&tree);
    assert!(heap.is_some() && block.is_none() && size >= 100 * 16);
    let list: LinkedList<u8> = [1, 2].into();
    assert!(list.get_heap_ptr().is_some() && list.get_block_ptr().is_none());
}

#[test]
fn a_ring_tells_its_start_where_it_can() {
    let full: VecDeque<u8> = vec![1_u8, 2, 3, 4].into();
    assert_eq!(full.get_block_ptr().is_some(), full.capacity() == 4);
    let mut wrapped = VecDeque::<u32>::with_capacity(8);
    let start = wrapped.as_slices().0.as_ptr() as usize;
    wrapped.extend(0..wrapped.capacity() as u32);
    wrapped.pop_front();
    assert_eq!(wrapped.get_block_ptr(), None, "one part, which begins anywhere");
    wrapped.push_back(9);
    assert_eq!(wrapped.get_block_ptr(), Some(start));
}

#[test]
fn owners_of_one_block_agree() {
    #[repr(align(64))]
    struct Aligned(#[allow(dead_code)] u8);
    let rc = Rc::new(5_u8);
    assert_eq!(answers(&rc), answers(&Rc::clone(&rc)));
    assert!(rc.is_shared());
    assert_eq!(rc.get_heap_ptr().unwrap() - rc.get_block_ptr().unwrap(), 16);
    let arc = Arc::new(Aligned(1));
    assert_eq!(arc.get_heap_ptr().unwrap() - arc.get_block_ptr().unwrap(), 64);
    assert_eq!(arc.get_size_estimate(), 128);
    let text: Arc<str> = "text".into();
    assert_eq!(text.get_size_estimate(), 20);
    assert_eq!(answers(&Rc::downgrade(&rc)), (None, None, 8));
}

#[test]
fn plain_and_borrowed_values_own_nothing() {
    let text = String::from("owner");
    assert_eq!(answers(&42_u32), (None, None, 4));
    assert_eq!(answers(&text.as_str()), (None, None, 16));
    assert_eq!(answers(&&text[..2]), (None, None, 16));
    assert_eq!(answers(&Cow::Borrowed("x")).0, None);
    assert_eq!(answers(&Cow::<str>::Owned(text.clone())).2, 5);
    assert_eq!(answers(&Mutex::new(text)).0, None);
}

#[test]
fn wrappers_answer_for_what_they_hold() {
    let vec = vec![1_u8, 2, 3];
    let at = Some(vec.as_ptr() as usize);
    let some = Some(vec);
    assert_eq!(answers(&some), (at, at, 3));
    assert_eq!(answers(&None::<Vec<u8>>), (None, None, 24));
    let cell = RefCell::new(vec![7_u8, 8, 9]);
    let at = Some(cell.borrow().as_ptr() as usize);
    assert_eq!(answers(&cell), (at, at, 3));
    let guard = cell.borrow_mut();
    assert_eq!(cell.get_heap_ptr(), None);
    drop(guard);
    assert_eq!(answers(&Ok::<_, u8>(cell.into_inner())), (at, at, 3));
    assert!(Some(Rc::new(1)).is_shared());
    assert_eq!(answers(&(1_u8, String::from("ab"), [1_u16, 2])).2, 1 + 2 + 4);
}
