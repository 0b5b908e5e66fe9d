//! Join strings, requests, the origin's verdict and denials (specs/join.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(missing_docs, reason = "a test")]

use ed25519_dalek::{Signer, SigningKey};
use proptest::prelude::*;
use rootcast::cose::{self, DocumentKind, KeySet, PublicKey, SignatureError};
use rootcast::denials::{Denials, DenialsError, Denied, VerifiedDenials};
use rootcast::id::{AuthorityHash, PlatformId, TrustHash};
use rootcast::join::{
    Claimed, JoinError, JoinString, JoinStringError, Member, Proved, Refusal, Request, Token, TokenSecret,
    Use, Verdict, judge,
};
use rootcast::limits::{JOIN_CLOCK_SKEW, MAX_DENIED, RENEWAL_GRACE};
use rootcast::member::{Labels, Role};
use rootcast::path::{ChannelName, MemberName};
use rootcast::trust::{Grant, GrantLimits, Trust};

const PLATFORM: PlatformId = PlatformId::from_bytes([7; 16]);
const NOW: u64 = 1_800_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from_bytes(&key.verifying_key().to_bytes()).unwrap()
}

fn sign(kind: DocumentKind, platform: PlatformId, payload: &[u8], keys: &[&SigningKey]) -> Vec<u8> {
    let one = |key: &&SigningKey| {
        let id = public(key).id();
        let signature = key.sign(&cose::to_be_signed(kind, platform, id, payload));
        cose::assemble(kind, id, payload, &signature.to_bytes())
    };
    keys.iter().flat_map(one).collect()
}

fn name(text: &str) -> MemberName {
    MemberName::new(text).unwrap()
}

fn join_string() -> JoinString {
    JoinString {
        platform: PLATFORM,
        fingerprint: TrustHash::from_bytes([9; 32]),
        addresses: vec!["origin.example.net:7400".into(), "[2001:db8::1]:7400".into()],
        secret: TokenSecret::from_bytes([5; 16]),
        role: Role::Agent,
        name: Some(name("web-1")),
        labels: Labels::from_pairs(["region=eu", "role=web"]).unwrap(),
        expires: NOW + 3600,
        uses: 1,
    }
}

fn request(own: &SigningKey) -> Request {
    Request {
        role: Role::Agent,
        name: name("web-1"),
        key: public(own),
        issued: NOW,
        recipient: String::new(),
    }
}

fn proved(request: &Request, own: &SigningKey, token: Option<&SigningKey>) -> Proved {
    let keys: Vec<&SigningKey> = token.into_iter().chain([own]).collect();
    let document = sign(DocumentKind::Join, PLATFORM, &request.encode(), &keys);
    let token = token.map(public);
    Claimed::read(&document).unwrap().verify(PLATFORM, token.as_ref()).unwrap()
}

fn token(key: &SigningKey) -> Token {
    Token {
        key: public(key),
        role: Role::Agent,
        name: None,
        labels: Labels::default(),
        expires: NOW + 3600,
        uses: 1,
        used: Vec::new(),
    }
}

fn member(key: &SigningKey) -> Member {
    Member {
        role: Role::Agent,
        name: name("web-1"),
        labels: Labels::default(),
        key: public(key),
        recipient: String::new(),
        issued: NOW - 1000,
        expires: NOW + 1000,
        last_end: NOW + 1000,
        chain: Vec::new(),
    }
}

#[test]
fn j_2_a_join_string_is_one_line_and_reads_back() {
    let join = join_string();
    let text = join.to_text();
    assert!(text.starts_with("rootcast-join-1:") && !text.contains(char::is_whitespace), "{text}");
    assert_eq!(JoinString::parse(&format!("  {text}\n")).unwrap(), join);
    assert!(!format!("{join:?}").contains("5, 5"), "the secret is not shown");
    assert!(join.check_time(NOW).is_ok());
    assert_eq!(join.check_time(NOW + 3600), Err(JoinStringError::Expired));
}

#[test]
fn j_2_every_string_that_was_cut_off_says_so() {
    let text = join_string().to_text();
    for length in 1..text.len() {
        let error = JoinString::parse(&text[..length]).unwrap_err();
        assert_eq!(error, JoinStringError::CutOff, "{length}");
    }
    assert_eq!(JoinString::parse(""), Err(JoinStringError::NotOne));
}

#[test]
fn j_2_what_is_no_join_string_is_named() {
    let text = join_string().to_text();
    for other in ["hello", "rootcast:1", "ROOTCAST-JOIN-1:abc"] {
        assert_eq!(JoinString::parse(other), Err(JoinStringError::NotOne), "{other}");
    }
    let newer = text.replacen("-1:", "-2:", 1);
    assert_eq!(JoinString::parse(&newer), Err(JoinStringError::OtherVersion { version: "2".into() }));
    let foreign = format!("{}!{}", &text[..20], &text[21..]);
    assert_eq!(JoinString::parse(&foreign), Err(JoinStringError::Mistyped { position: Some(21) }));
    for broken in [
        JoinString { addresses: vec![], ..join_string() },
        JoinString { addresses: vec!["no-port".into()], ..join_string() },
        JoinString { addresses: vec!["a b:1".into()], ..join_string() },
        JoinString { addresses: vec!["a:0".into()], ..join_string() },
        JoinString { uses: 0, ..join_string() },
    ] {
        let error = JoinString::parse(&broken.to_text()).unwrap_err();
        assert!(matches!(error, JoinStringError::Unsound(_)), "{error}");
    }
    assert!(matches!(JoinString::parse(&"x".repeat(1 << 20)), Err(JoinStringError::Unsound(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn j_2_any_join_string_reads_back(
        secret: [u8; 16], fingerprint: [u8; 32], expires: u64, uses in 1u64.., port in 1u16..,
        named: bool, host in "[a-z0-9.-]{1,40}",
    ) {
        let join = JoinString {
            fingerprint: TrustHash::from_bytes(fingerprint),
            secret: TokenSecret::from_bytes(secret),
            addresses: vec![format!("{host}:{port}")],
            name: named.then(|| name("web-1")),
            expires, uses,
            ..join_string()
        };
        prop_assert_eq!(JoinString::parse(&join.to_text()).unwrap(), join);
    }

    #[test]
    fn j_2_one_wrong_character_is_always_noticed(at in 16usize..100, wrong in "[a-z2-7]") {
        let text = join_string().to_text();
        let changed = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
        prop_assume!(changed != text);
        prop_assert!(JoinString::parse(&changed).is_err());
    }

    #[test]
    fn j_5_any_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Claimed::read(&bytes);
        let _ = JoinString::parse(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn j_6_both_keys_must_have_signed() {
    let (own, by) = (key(1), key(2));
    let payload = request(&own).encode();
    let read = |keys: &[&SigningKey]| Claimed::read(&sign(DocumentKind::Join, PLATFORM, &payload, keys));
    let whole = read(&[&by, &own]).unwrap();
    assert_eq!((whole.token(), whole.request()), (Some(public(&by).id()), &request(&own)));
    let proved = whole.clone().verify(PLATFORM, Some(&public(&by))).unwrap();
    assert_eq!(proved.token(), Some(public(&by).id()));
    // Without the token's key at hand, it stands for its own key alone.
    assert_eq!(whole.clone().verify(PLATFORM, None).unwrap().token(), None);
    let renewal = read(&[&own]).unwrap();
    assert_eq!(renewal.token(), None);
    let too_few = renewal.verify(PLATFORM, Some(&public(&by))).unwrap_err();
    assert!(matches!(too_few, JoinError::Signature(SignatureError::TooFew { .. })));
    for signers in [&[&by][..], &[&own, &by], &[&own, &own], &[&by, &by], &[&by, &own, &own], &[]] {
        assert!(read(signers).is_err(), "{} signers", signers.len());
    }
    // Of another platform, or altered on the way.
    assert!(whole.verify(PlatformId::from_bytes([8; 16]), Some(&public(&by))).is_err());
    let document = sign(DocumentKind::Join, PLATFORM, &payload, &[&by, &own]);
    for at in 0..document.len() {
        let mut changed = document.clone();
        changed[at] ^= 1;
        let outcome = Claimed::read(&changed).and_then(|c| c.verify(PLATFORM, Some(&public(&by))));
        assert!(outcome.is_err(), "byte {at}");
    }
}

#[test]
fn threat_24_a_request_for_another_key_needs_both_signatures_anew() {
    // A relay on the way has the document, and neither key.
    let (own, by, thief) = (key(1), key(2), key(3));
    let document = sign(DocumentKind::Join, PLATFORM, &request(&own).encode(), &[&by, &own]);
    let token_half = &document[..document.len() / 2];
    let stolen = Request { key: public(&thief), ..request(&own) };
    let grafted = [token_half, &sign(DocumentKind::Join, PLATFORM, &stolen.encode(), &[&thief])[..]].concat();
    let outcome = Claimed::read(&grafted).and_then(|c| c.verify(PLATFORM, Some(&public(&by))));
    assert!(outcome.is_err());
}

#[test]
fn j_5_a_recipient_is_bounded_and_plain() {
    let own = key(1);
    for (recipient, good) in
        [(String::new(), true), ("age1qqq7".into(), true), ("age1\n".into(), false), ("a".repeat(129), false)]
    {
        let request = Request { recipient, ..request(&own) };
        let document = sign(DocumentKind::Join, PLATFORM, &request.encode(), &[&own]);
        assert_eq!(Claimed::read(&document).is_ok(), good);
    }
}

#[test]
fn threat_24_the_verdict_on_a_token() {
    let (own, by, other) = (key(1), key(2), key(3));
    let asked = request(&own);
    let by_token = proved(&asked, &own, Some(&by));
    let of = |token: &Token, member: Option<&Member>| judge(&by_token, Some(token), member, false, NOW);
    let good = token(&by);
    assert_eq!(of(&good, None), Ok(Verdict::Join));
    let used = |name_: &str, key: &SigningKey| vec![Use { name: name(name_), key: public(key) }];
    for (token, refusal) in [
        (Token { role: Role::Relay, ..good.clone() }, Refusal::WrongRole),
        (Token { name: Some(name("web-2")), ..good.clone() }, Refusal::WrongName),
        (Token { expires: NOW, ..good.clone() }, Refusal::Expired),
        (Token { used: used("web-9", &other), ..good.clone() }, Refusal::UsedUp),
        // The same name with another key is another machine.
        (Token { used: used("web-1", &other), ..good.clone() }, Refusal::UsedUp),
        (token(&other), Refusal::UnknownToken),
    ] {
        assert_eq!(of(&token, None), Err(refusal));
    }
    // The answer was lost: the same machine asks again.
    let again = Token { used: used("web-1", &own), ..good.clone() };
    assert_eq!(of(&again, None), Ok(Verdict::JoinAgain));
    // Another machine has taken the name over since: an old request does not take it back.
    assert_eq!(of(&again, Some(&member(&other))), Err(Refusal::UsedUp));
    assert_eq!(of(&Token { uses: 2, used: used("web-9", &other), ..good.clone() }, None), Ok(Verdict::Join));
    // A name that is taken, unless the token names it.
    assert_eq!(of(&good, Some(&member(&other))), Err(Refusal::NameTaken));
    let naming = Token { name: Some(name("web-1")), ..good.clone() };
    assert_eq!(of(&naming, Some(&member(&other))), Ok(Verdict::Join));
    assert_eq!(judge(&by_token, Some(&good), None, true, NOW), Err(Refusal::Denied));
    assert_eq!(judge(&by_token, None, None, false, NOW), Err(Refusal::UnknownToken));
    // A proof by its own key alone is no proof by the token, though that is at hand.
    assert_eq!(judge(&proved(&asked, &own, None), Some(&good), None, false, NOW), Err(Refusal::UnknownToken));
    let skew = JOIN_CLOCK_SKEW.as_secs();
    for (now, verdict) in [
        (NOW + skew + 1, Err(Refusal::Stale)),
        (NOW - skew - 1, Err(Refusal::Stale)),
        (NOW - skew, Ok(Verdict::Join)),
    ] {
        assert_eq!(judge(&by_token, Some(&good), None, false, now), verdict);
    }
}

#[test]
fn j_31_the_verdict_on_a_renewal() {
    let (own, other, by) = (key(1), key(3), key(2));
    let renewal = |now| proved(&Request { issued: now, ..request(&own) }, &own, None);
    let of = |member: &Member, denied, now| judge(&renewal(now), None, Some(member), denied, now);
    let known = member(&own);
    assert_eq!(of(&known, false, NOW), Ok(Verdict::Renew));
    assert_eq!(of(&known, true, NOW), Err(Refusal::Denied));
    assert_eq!(of(&member(&other), false, NOW), Err(Refusal::UnknownToken));
    let last = known.expires + RENEWAL_GRACE.as_secs();
    assert_eq!(of(&known, false, last), Ok(Verdict::Renew));
    assert_eq!(of(&known, false, last + 1), Err(Refusal::TooLate));
    // Too late to renew, and a token that names it brings it back.
    let late = proved(&Request { issued: last + 1, ..request(&own) }, &own, Some(&by));
    let naming = Token { name: Some(name("web-1")), expires: last + 60, ..token(&by) };
    assert_eq!(judge(&late, Some(&naming), Some(&known), false, last + 1), Ok(Verdict::Join));
    assert!(!known.is_due(known.issued) && known.is_due(NOW));
}

fn trust(heads: &SigningKey) -> Trust {
    let keys = |key: &SigningKey| KeySet { threshold: 1, keys: vec![public(key)] };
    Trust {
        platform: PLATFORM,
        version: 1,
        issued: NOW,
        expires: NOW + 1,
        roots: keys(&key(10)),
        grants: vec![Grant {
            prefix: ChannelName::new("main").unwrap(),
            epoch: 1,
            publishers: keys(&key(11)),
            limits: GrantLimits::default(),
            symlinks: true,
        }],
        heads: keys(heads),
        authorities: vec![AuthorityHash::from_bytes([1; 32])],
    }
}

#[test]
fn j_42_denials_are_the_online_keys_and_never_go_back() {
    let (online, other) = (key(12), key(13));
    let trust = trust(&online);
    let denied = |names: &[&str]| -> Vec<Denied> {
        names.iter().map(|text| Denied { role: Role::Agent, name: name(text) }).collect()
    };
    let denials = Denials { sequence: 3, issued: NOW, denied: denied(&["a", "b"]) };
    let signed = |denials: &Denials, key: &SigningKey| {
        sign(DocumentKind::Denials, PLATFORM, &denials.encode(), &[key])
    };
    let document = signed(&denials, &online);
    for held in [0, 3] {
        assert_eq!(*VerifiedDenials::verify(&document, &trust, held).unwrap().denials(), denials);
    }
    let rollback = DenialsError::Rollback { got: 3, held: 4 };
    assert_eq!(VerifiedDenials::verify(&document, &trust, 4).unwrap_err(), rollback);
    let foreign = VerifiedDenials::verify(&signed(&denials, &other), &trust, 0).unwrap_err();
    assert!(matches!(foreign, DenialsError::Signature(_)));
    for unsound in [
        Denials { sequence: 0, ..denials.clone() },
        Denials { sequence: u64::MAX, ..denials.clone() },
        Denials { denied: denied(&["b", "a"]), ..denials.clone() },
        Denials { denied: denied(&["a", "a"]), ..denials.clone() },
    ] {
        let outcome = VerifiedDenials::verify(&signed(&unsound, &online), &trust, 0);
        assert!(matches!(outcome, Err(DenialsError::Unsound(_))), "{unsound:?}");
    }
    let names: Vec<String> = (0..=MAX_DENIED).map(|n| format!("{n:0>128}")).collect();
    let all: Vec<Denied> = names.iter().map(|n| Denied { role: Role::Publisher, name: name(n) }).collect();
    let most = Denials { denied: all[..MAX_DENIED].to_vec(), ..denials.clone() };
    assert!(VerifiedDenials::verify(&signed(&most, &online), &trust, 0).is_ok());
    assert!(
        VerifiedDenials::verify(&signed(&Denials { denied: all, ..denials }, &online), &trust, 0).is_err()
    );
}

#[test]
fn j_2_the_text_of_a_join_string_does_not_change() {
    let text = join_string().to_text();
    let golden = "rootcast-join-1:rfiaobyha4dqobyha4dqobyha4dqowbabeeqscijbeeqscijbeeqscijbeeqscijbeeq\
                  scijbeeqscijbeeye53pojuwo2lofzsxqylnobwgkltomv2dunzugayhewzsgaydcotemi4duorrlu5donbq\
                  gbiakbifaucqkbifaucqkbifaucqkzlbm5sw45dfo5sweljrqkbgm4tfm5uw63tcmv2yezdsn5wgky3xmvrb\
                  u22j4aiacdfo3via";
    assert_eq!(text, golden);
}
