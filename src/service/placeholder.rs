//! What stands in the arguments of a command for a directory (specs/configuration.md, F-98).
//!
//! Commands are written in languages of their own that have braces too, so only these names in braces are
//! placeholders: `{}`, `{print}`, `%{http_code}`, `{{.Source}}` and a shell's `${name}` are text. What is one
//! slip away from a placeholder is refused.

use super::ServiceFault;

/// What stands for the directory of the tree that is being activated.
const STAGED: &str = "{staged}";
/// What stands for the directory of the live tree.
const CURRENT: &str = "{current}";
/// All of them.
pub(super) const PLACEHOLDERS: [&str; 2] = [STAGED, CURRENT];

/// A piece of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    /// Text as it is.
    Text(&'a str),
    /// A name in braces, with them.
    Placeholder(&'a str),
}

/// The name in braces that begins at the brace `text` begins with, with its braces.
fn in_braces(text: &str) -> Option<&str> {
    let name = text.strip_prefix('{')?;
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let end = name.find(|c| !is_of_name(c))?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.get(end..)?.starts_with('}');
    text.get(..end + 2).filter(|_| is_name)
}

/// Whether a name in braces is one of ours, or one slip away from it. Programs have others of their own.
fn is_near(name: &str) -> bool {
    let distance = |known: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
    PLACEHOLDERS.iter().any(|known| distance(known) <= 1)
}

/// The pieces of an argument, in their order.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut begun, mut at) = (Vec::new(), 0, 0);
    let text_of = |from: usize, to: usize| Piece::Text(text.get(from..to).unwrap_or_default());
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('{')) {
        let brace = at + found;
        let Some(named) = text.get(brace..).and_then(in_braces) else {
            at = brace + 1;
            continue;
        };
        let (before, end) = (text.get(begun..brace).unwrap_or_default(), brace + named.len());
        at = end;
        let is_twice = before.ends_with('{') && text.get(end..).is_some_and(|rest| rest.starts_with('}'));
        if is_twice && is_near(named) {
            // In braces twice: the outer pair is left out. Other names may be of a template's language.
            pieces.extend([text_of(begun, brace - 1), Piece::Text(named)]);
            (begun, at) = (end + 1, end + 1);
        } else if !is_twice && !before.ends_with('$') {
            pieces.extend([Piece::Text(before), Piece::Placeholder(named)]);
            begun = end;
        }
    }
    pieces.push(text_of(begun, text.len()));
    pieces
}

/// An argument with the directories in their places.
pub(super) fn filled_in(text: &str, staged: &str, current: &str) -> String {
    let fill = |piece| match piece {
        Piece::Placeholder(STAGED) => staged,
        Piece::Placeholder(CURRENT) => current,
        Piece::Placeholder(other) | Piece::Text(other) => other,
    };
    pieces(text).into_iter().map(fill).collect()
}

/// Checks that no placeholder of an argument is a slip for one that is known.
///
/// # Errors
/// [`ServiceFault::Placeholder`].
pub(super) fn check(text: &str) -> Result<(), ServiceFault> {
    let mut names = pieces(text).into_iter().filter_map(|piece| match piece {
        Piece::Placeholder(name) => Some(name),
        Piece::Text(_) => None,
    });
    match names.find(|name| is_near(name) && !PLACEHOLDERS.contains(name)) {
        Some(unknown) => Err(ServiceFault::Placeholder(unknown.chars().take(120).collect())),
        None => Ok(()),
    }
}

/// A placeholder that is known, in what is no argument: there it stands for nothing.
pub(super) fn stray(text: &str) -> Option<&'static str> {
    PLACEHOLDERS.into_iter().find(|placeholder| text.contains(placeholder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f_98_only_a_name_in_braces_is_a_placeholder() {
        let filled = |text| filled_in(text, "/s/{current}", "/c");
        for (text, expected) in [
            ("", ""),
            ("{staged}", "/s/{current}"),
            ("-p{staged}/a:{current}/b", "-p/s/{current}/a:/c/b"),
            ("{staged}{current}", "/s/{current}/c"),
            ("{{staged}}", "{staged}"),
            ("{{{staged}}}", "{{staged}}"),
            ("a{{x}}b{current}", "a{{x}}b/c"),
            (
                "{{range .M}}{{.S}}{{end}} %{http_code} @{upstream}",
                "{{range .M}}{{.S}}{{end}} %{http_code} @{upstream}",
            ),
            ("{{stage}} {state} {{state}}", "{stage} {state} {{state}}"),
            ("{{staged}", "{/s/{current}"),
            ("${staged}/${x}/{current}", "${staged}/${x}//c"),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
            assert_eq!(filled(text), expected, "{text}");
        }
        for text in
            ["{}", "{", "}{", "{1,2}", "{a b}", "{ print $1 }", "{\"a\":{\"b\":1}}", "{é}", "{staged", "x{2}"]
        {
            assert_eq!((check(text), filled(text).as_str()), (Ok(()), text));
        }
        for (text, unknown) in [
            ("{stage}", "{stage}"),
            ("a{staged}{STAGED}", "{STAGED}"),
            ("{x}{{Current}", "{Current}"),
            ("{-x}{curent}", "{curent}"),
        ] {
            assert_eq!(check(text), Err(ServiceFault::Placeholder(unknown.into())), "{text}");
        }
    }
}
