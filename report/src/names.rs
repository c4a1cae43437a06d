//! Function names short enough for one line.

/// Names up to this many characters stay as they are.
const LONG: usize = 50;

/// `name` with its inner template arguments and its parameters left out, where it is long:
/// `ns::Map<…>::insert<…>(…)`. `None` where there is nothing to gain.
///
/// What names the function stays: a leading `<Type as Trait>` keeps its outer level, the trait without
/// its path, and `(anonymous namespace)`, `operator()` and `operator<` are no brackets.
pub fn short(name: &str) -> Option<String> {
    if name.chars().count() <= LONG {
        return None;
    }
    let out = without_arguments(name)?;
    let out = without_trait_path(&out).unwrap_or(out);
    (out.len() < name.len()).then_some(out)
}

/// `<a::Type as b::Trait>::f` as `<a::Type as Trait>::f`.
fn without_trait_path(name: &str) -> Option<String> {
    let (kind, rest) = name.strip_prefix('<')?.split_once(" as ")?;
    let (interface, function) = rest.split_once(">::")?;
    let (_, interface) = interface.rsplit_once("::")?;
    Some(format!("<{kind} as {interface}>::{function}"))
}

/// `name` with every bracket's content but an outermost leading `<…>` left out; `None` where brackets
/// don't match.
fn without_arguments(name: &str) -> Option<String> {
    let mut out = String::with_capacity(LONG);
    let mut open: Vec<char> = Vec::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let opaque = opaque_prefix(rest);
        let step = if opaque > 0 { opaque } else { c.len_utf8() };
        let (piece, tail) = rest.split_at(step);
        let kept = open.iter().all(|&bracket| bracket == 'k');
        let arrow = c == '>' && name[..name.len() - rest.len()].ends_with(['-', '=']);
        match c {
            _ if opaque > 0 || arrow => {}
            '<' | '(' => {
                let keep = rest.len() == name.len() && c == '<';
                open.push(if keep { 'k' } else { c });
                if kept {
                    out.push(c);
                    if !keep {
                        out.push('…');
                    }
                }
                rest = tail;
                continue;
            }
            '>' | ')' => {
                let opened = open.pop()?;
                if (c == ')') != (opened == '(') {
                    return None;
                }
                if open.iter().all(|&bracket| bracket == 'k') {
                    out.push(c);
                }
                rest = tail;
                continue;
            }
            _ => {}
        }
        if kept {
            out.push_str(piece);
        }
        rest = tail;
    }
    open.is_empty().then_some(out)
}

/// Length of what stands at the start of `rest` and looks like brackets without being any.
pub fn opaque_prefix(rest: &str) -> usize {
    const WHOLE: [&str; 10] = [
        "(anonymous namespace)",
        "operator()",
        "operator<=>",
        "operator<<",
        "operator<=",
        "operator<",
        "operator>>",
        "operator>=",
        "operator->",
        "operator>",
    ];
    WHOLE.iter().find(|whole| rest.starts_with(**whole)).map_or(0, |whole| whole.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_stay() {
        assert_eq!(short("main"), None);
        assert_eq!(
            short("std::vector<int, std::allocator<int> >::push_back(int const&)"),
            Some("std::vector<…>::push_back(…)".to_owned())
        );
    }

    #[test]
    fn long_names_lose_their_arguments() {
        let cases = [
            (
                "void ns::Map<std::string, ns::Entry<int> >::insert<std::pair<int, int> >(std::pair<int, int>&&) const",
                "void ns::Map<…>::insert<…>(…) const",
            ),
            (
                "<alloc::vec::Vec<app::very::long::path::Type> as core::iter::FromIterator<app::Type>>::from_iter",
                "<alloc::vec::Vec<…> as FromIterator<…>>::from_iter",
            ),
            (
                "<cargo::util::toml::InheritableFields as core::clone::Clone>::clone",
                "<cargo::util::toml::InheritableFields as Clone>::clone",
            ),
            (
                "(anonymous namespace)::Visitor::operator()(clang::ast::Declaration const&, unsigned long)",
                "(anonymous namespace)::Visitor::operator()(…)",
            ),
            (
                "bool ns::operator< <std::string, std::string>(ns::Thing<int> const&, ns::Thing<int> const&)",
                "bool ns::operator< <…>(…)",
            ),
            (
                "app::apply::<fn(&app::some::Input) -> app::some::long::Output, app::Other>::call_it_now",
                "app::apply::<…>::call_it_now",
            ),
        ];
        for (name, expected) in cases {
            assert_eq!(short(name).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_does_not_balance_stays() {
        assert_eq!(short(&format!("f<{}", "x".repeat(80))), None);
        assert_eq!(short(&format!("f>{}", "x".repeat(80))), None);
        assert_eq!(short(&format!("f<{})", "x".repeat(80))), None);
        assert_eq!(short(&"é".repeat(200)), None);
    }
}
