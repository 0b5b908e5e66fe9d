//! Licence expressions of packages: identifiers, `AND`, `OR`, `WITH`, brackets,
//! and the old `/` for `OR`.

/// Whether an expression is satisfied by the licences that `allowed` accepts.
/// An identifier with an exception is asked for whole, as `A WITH B`.
/// `None`: this is not a licence expression.
pub fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let tokens = tokens(expression);
    let mut rest = tokens.as_slice();
    let answer = any_of(&mut rest, allowed)?;
    rest.is_empty().then_some(answer)
}

/// The identifiers of an expression, each `A WITH B` as one.
pub fn identifiers(expression: &str) -> Vec<String> {
    let found = std::cell::RefCell::new(Vec::new());
    let _ = satisfied(expression, &|name| {
        found.borrow_mut().push(name.to_owned());
        false
    });
    found.into_inner()
}

fn tokens(expression: &str) -> Vec<String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

fn take(rest: &mut &[String], word: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if first == word => {
            *rest = after;
            true
        }
        _ => false,
    }
}

// Both sides are always read, whatever the first one says: the rest of the text must be well-formed too.
fn any_of(rest: &mut &[String], allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut answer = all_of(rest, allowed)?;
    while take(rest, "OR") {
        answer |= all_of(rest, allowed)?;
    }
    Some(answer)
}

fn all_of(rest: &mut &[String], allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut answer = one(rest, allowed)?;
    while take(rest, "AND") {
        answer &= one(rest, allowed)?;
    }
    Some(answer)
}

fn one(rest: &mut &[String], allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    if take(rest, "(") {
        let answer = any_of(rest, allowed)?;
        return take(rest, ")").then_some(answer);
    }
    let name = identifier(rest)?;
    if take(rest, "WITH") {
        let exception = identifier(rest)?;
        return Some(allowed(&format!("{name} WITH {exception}")));
    }
    Some(allowed(&name))
}

fn identifier(rest: &mut &[String]) -> Option<String> {
    let (first, after) = rest.split_first()?;
    if ["AND", "OR", "WITH", "(", ")"].contains(&first.as_str()) {
        return None;
    }
    *rest = after;
    Some(first.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(expression: &str, allowed: &[&str]) -> Option<bool> {
        satisfied(expression, &|name| allowed.contains(&name))
    }

    #[test]
    fn and_binds_closer_than_or() {
        assert_eq!(with("A OR B AND C", &["A"]), Some(true));
        assert_eq!(with("A OR B AND C", &["C"]), Some(false));
        assert_eq!(with("(A OR B) AND C", &["A"]), Some(false));
        assert_eq!(with("(A OR B) AND C", &["B", "C"]), Some(true));
    }

    #[test]
    fn an_exception_is_part_of_the_name_and_a_slash_is_or() {
        assert_eq!(with("A WITH X", &["A"]), Some(false));
        assert_eq!(with("A WITH X OR B", &["A WITH X"]), Some(true));
        assert_eq!(with("A/B", &["B"]), Some(true));
    }

    #[test]
    fn what_is_no_expression_is_refused_even_when_its_start_would_do() {
        for text in ["", "A OR", "A B", "(A", "A)", "AND", "A WITH", "A OR (B"] {
            assert_eq!(with(text, &["A", "B"]), None, "{text}");
        }
    }

    #[test]
    fn identifiers_are_listed_whole() {
        assert_eq!(identifiers("(A OR B) AND C WITH X"), ["A", "B", "C WITH X"]);
    }
}
