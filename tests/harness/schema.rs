//! Checks JSON against `fixtures/snapshot.schema.json`.
//!
//! It knows the keywords that this schema uses and refuses any other, so that a schema that grows is
//! never half checked. One test lets another implementation check the same file.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use crate::artifacts::source_dir;

/// A schema.
#[derive(Debug)]
pub struct Schema {
    root: Value,
}

/// The snapshot's schema.
///
/// # Panics
/// When the fixture cannot be read.
#[must_use]
pub fn snapshot() -> &'static Schema {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let text = std::fs::read(source_dir().join("fixtures/snapshot.schema.json")).expect("the schema");
        Schema { root: serde_json::from_slice(&text).expect("the schema is JSON") }
    })
}

impl Schema {
    /// A schema from JSON.
    #[must_use]
    pub const fn new(root: Value) -> Self {
        Self { root }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The first place that breaks the schema, and how.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        self.at(&self.root, value).map_err(|fault| format!("${}: {}", fault.path, fault.what))
    }

    fn at(&self, rule: &Value, value: &Value) -> Result<(), Fault> {
        let Some(rule) = rule.as_object() else {
            return Err(Fault::new(format!("a rule that is no object: {rule}")));
        };
        rule.iter().try_for_each(|(keyword, argument)| self.keyword(keyword, argument, rule, value))
    }

    fn keyword(
        &self,
        keyword: &str,
        argument: &Value,
        rule: &Map<String, Value>,
        value: &Value,
    ) -> Result<(), Fault> {
        match keyword {
            "$schema" | "$defs" | "title" | "description" => Ok(()),
            "$ref" => self.at(self.definition(argument)?, value),
            "type" => is_type(argument, value),
            "const" => hold(argument == value, || format!("is {value}, not {argument}")),
            "enum" => {
                hold(list(argument).contains(value), || format!("is {value}, which is none of {argument}"))
            }
            "minimum" => {
                hold(value.as_f64().is_none_or(|n| n >= argument.as_f64().unwrap_or(f64::MAX)), || {
                    format!("is {value}, below {argument}")
                })
            }
            "minItems" => length(value, |n| Some(n) >= argument.as_u64()),
            "maxItems" => length(value, |n| Some(n) <= argument.as_u64()),
            "required" => required(argument, value),
            "properties" => self.properties(argument, value),
            "additionalProperties" => {
                hold(argument == &Value::Bool(true), || "closed objects are not known".into())
            }
            "items" => self.items(argument, value),
            "anyOf" => hold(list(argument).iter().any(|one| self.at(one, value).is_ok()), || {
                format!("{} fits none of the alternatives", short(value))
            }),
            "allOf" => list(argument).iter().try_for_each(|one| self.at(one, value)),
            "if" => {
                let branch = if self.at(argument, value).is_ok() { "then" } else { "else" };
                rule.get(branch).map_or(Ok(()), |then| self.at(then, value))
            }
            "then" | "else" => Ok(()),
            unknown => {
                Err(Fault::new(format!("the schema uses `{unknown}`, which this checker does not know")))
            }
        }
    }

    fn definition(&self, reference: &Value) -> Result<&Value, Fault> {
        reference
            .as_str()
            .and_then(|text| text.strip_prefix('#'))
            .and_then(|pointer| self.root.pointer(pointer))
            .ok_or_else(|| Fault::new(format!("the schema's {reference} leads nowhere")))
    }

    fn properties(&self, rules: &Value, value: &Value) -> Result<(), Fault> {
        let (Some(rules), Some(object)) = (rules.as_object(), value.as_object()) else { return Ok(()) };
        rules
            .iter()
            .filter_map(|(name, rule)| object.get(name).map(|inner| (name, rule, inner)))
            .try_for_each(|(name, rule, inner)| {
                self.at(rule, inner).map_err(|f| f.inside(&format!(".{name}")))
            })
    }

    fn items(&self, rule: &Value, value: &Value) -> Result<(), Fault> {
        list(value)
            .iter()
            .enumerate()
            .try_for_each(|(i, item)| self.at(rule, item).map_err(|f| f.inside(&format!("[{i}]"))))
    }
}

/// Where and how a value breaks the schema.
#[derive(Debug)]
struct Fault {
    path: String,
    what: String,
}

impl Fault {
    const fn new(what: String) -> Self {
        Self { path: String::new(), what }
    }

    fn inside(self, step: &str) -> Self {
        Self { path: format!("{step}{}", self.path), ..self }
    }
}

fn hold(holds: bool, why: impl FnOnce() -> String) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::new(why())) }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn length(value: &Value, fits: impl FnOnce(u64) -> bool) -> Result<(), Fault> {
    let n = list(value).len() as u64;
    hold(!value.is_array() || fits(n), || format!("has {n} items"))
}

fn required(names: &Value, value: &Value) -> Result<(), Fault> {
    let Some(object) = value.as_object() else { return Ok(()) };
    list(names)
        .iter()
        .filter_map(Value::as_str)
        .try_for_each(|name| hold(object.contains_key(name), || format!("lacks `{name}`")))
}

fn is_type(names: &Value, value: &Value) -> Result<(), Fault> {
    let fits = |name: &Value| match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        _ => false,
    };
    let fitting = if names.is_array() { list(names).iter().any(fits) } else { fits(names) };
    hold(fitting, || format!("{} is not of type {names}", short(value)))
}

fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((cut, _)) = text.char_indices().nth(100) {
        text.truncate(cut);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: Value, value: &Value) -> Result<(), String> {
        Schema::new(schema).check(value)
    }

    #[test]
    fn types_and_bounds() {
        assert!(check(json!({"type": ["integer", "null"], "minimum": 0}), &json!(null)).is_ok());
        assert!(check(json!({"type": "integer", "minimum": 0}), &json!(-1)).is_err());
        assert!(check(json!({"type": "integer"}), &json!(1.5)).is_err());
        assert!(check(json!({"maxItems": 1}), &json!([1, 2])).is_err());
    }

    #[test]
    fn the_place_of_a_fault_is_named() {
        let schema = json!({"properties": {"a": {"items": {"required": ["b"]}}}});
        assert_eq!(check(schema, &json!({"a": [{"b": 1}, {}]})), Err("$.a[1]: lacks `b`".to_owned()));
    }

    #[test]
    fn conditions_and_references() {
        let schema = json!({"$defs": {"n": {"type": "null"}}, "if": {"const": 1}, "then": {"$ref": "#/$defs/n"}, "else": true});
        assert!(check(schema.clone(), &json!(1)).is_err());
        assert!(check(json!({"anyOf": [{"const": 1}, {"const": 2}]}), &json!(2)).is_ok());
        assert!(check(json!({"unheard-of": 1}), &json!(2)).is_err(), "an unknown keyword is refused");
        drop(schema);
    }
}
