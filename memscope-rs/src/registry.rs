//! The registry of variables: what a program's own tracking code says about them by their addresses.

use crate::error::TrackingResult;
use crate::names::{self, Place};
use crate::store::Slot;
use crate::tracker::{get_global_tracker, global_store};
use crate::{clock, scope};
use std::panic::Location;

/// The registry: the variables of the process's tracker, by address.
///
/// `track_var!` does all this by itself. The functions are for code that names memory which is not
/// wrapped:
///
/// ```
/// use memscope_rs::VariableRegistry;
///
/// let buffer = vec![0_u8; 256];
/// let address = buffer.as_ptr() as usize;
/// VariableRegistry::register_variable(address, "buffer", "Vec<u8>", buffer.len())?;
/// let born = VariableRegistry::get_variable_info(address).unwrap().creation_time;
/// drop(buffer);
/// VariableRegistry::mark_variable_destroyed(address, born + 7_500_000)?;
///
/// let info = VariableRegistry::get_variable_info(address).unwrap();
/// assert_eq!(info.lifetime_ms, Some(7));
/// # Ok::<(), memscope_rs::TrackingError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct VariableRegistry(());

/// What the registry knows of a variable. Times are ns since the Unix epoch.
///
/// ```
/// let value = memscope_rs::track_var!(1_u16);
/// let info = memscope_rs::VariableRegistry::get_variable_info(value.tracked_ptr()).unwrap();
/// assert_eq!((info.var_name.as_deref(), info.type_name.as_deref()), (Some("1_u16"), Some("u16")));
/// assert_eq!(info.destruction_time, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VariableInfo {
    /// Address.
    pub address: usize,
    /// Name.
    pub var_name: Option<String>,
    /// Type.
    pub type_name: Option<String>,
    /// Scope.
    pub scope_name: Option<String>,
    /// Bytes.
    pub size: usize,
    /// When it was tracked.
    pub creation_time: u64,
    /// When it ended; `None` while it lives.
    pub destruction_time: Option<u64>,
    /// Lifetime in whole ms; `None` while it lives.
    pub lifetime_ms: Option<u64>,
}

impl VariableInfo {
    fn of(slot: &Slot) -> Self {
        let name = names::get(slot.name());
        let text = |text: Option<&str>| text.map(str::to_owned);
        let end = Some(slot.end()).filter(|&end| end != 0);
        Self {
            address: slot.address(),
            var_name: text(name.and_then(|name| name.name.as_deref())),
            type_name: text(name.and_then(|name| name.type_name.as_deref())),
            scope_name: text(scope::name(slot.scope()).or(name.and_then(|name| name.module))),
            size: slot.size(),
            creation_time: clock::epoch(slot.start()),
            destruction_time: end.map(clock::epoch),
            lifetime_ms: end.map(|end| end.saturating_sub(slot.start()) / 1_000_000),
        }
    }
}

impl VariableRegistry {
    /// Registers a variable whose memory begins at `address`. What is live there already is given the name.
    ///
    /// ```
    /// memscope_rs::VariableRegistry::register_variable(0x1000, "table", "[u64; 8]", 64)?;
    /// # Ok::<(), memscope_rs::TrackingError>(())
    /// ```
    ///
    /// # Errors
    /// None so far.
    #[track_caller]
    pub fn register_variable(
        address: usize,
        name: impl Into<String>,
        type_name: impl Into<String>,
        size: usize,
    ) -> TrackingResult<()> {
        let place = Place::from(Location::caller());
        let (name, type_name): (String, String) = (name.into(), type_name.into());
        let number = names::number(Some(name.into()), Some(type_name.into()), Some(place));
        match get_global_tracker().slot_at(address) {
            Some(slot) => slot.set_name(number),
            None => get_global_tracker().begin(address, size, number),
        }
        Ok(())
    }

    /// The variable at `address` was destroyed at `destruction_time` (ns since the Unix epoch): its lifetime is computed
    /// from that. The record stays.
    ///
    /// ```
    /// let value = memscope_rs::track_var!(String::from("text"));
    /// let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos() as u64;
    /// memscope_rs::VariableRegistry::mark_variable_destroyed(value.tracked_ptr(), now)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`TrackingError::UnknownAddress`](crate::TrackingError::UnknownAddress) where no live variable is registered there.
    pub fn mark_variable_destroyed(address: usize, destruction_time: u64) -> TrackingResult<()> {
        get_global_tracker().end(address, |_| clock::since_epoch(destruction_time))
    }

    /// What is known of the variable at an address: the live one, else the last that was there.
    ///
    /// ```
    /// assert_eq!(memscope_rs::VariableRegistry::get_variable_info(0x123), None);
    /// ```
    #[must_use]
    pub fn get_variable_info(address: usize) -> Option<VariableInfo> {
        let live = global_store().find(address);
        let last =
            || global_store().iter().filter(|slot| slot.address() == address).max_by_key(|slot| slot.start());
        live.or_else(last).map(VariableInfo::of)
    }

    /// All variables, in order of their creation.
    ///
    /// ```
    /// let _first = memscope_rs::track_var!(1);
    /// let _second = memscope_rs::track_var!(2);
    /// assert_eq!(memscope_rs::VariableRegistry::get_all_variables().len(), 2);
    /// ```
    #[must_use]
    pub fn get_all_variables() -> Vec<VariableInfo> {
        let mut all: Vec<VariableInfo> = global_store().iter().map(VariableInfo::of).collect();
        all.sort_by_key(|variable| variable.creation_time);
        all
    }

    /// Whether a live variable is registered at an address.
    ///
    /// ```
    /// let value = memscope_rs::track_var!(1);
    /// assert!(memscope_rs::VariableRegistry::is_registered(value.tracked_ptr()));
    /// ```
    #[must_use]
    pub fn is_registered(address: usize) -> bool {
        global_store().find(address).is_some()
    }
}
