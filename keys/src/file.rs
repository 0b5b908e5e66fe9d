//! Key files: what is on the disk, and what opens it.

use crate::{KeyError, SecretKey};
use rootcast::cose::PublicKey;
use rootcast::limits::{KEY_WORK_FACTOR, MAX_KEY_FILE, MAX_KEY_FILES, MAX_PASSPHRASE};
use rootcast_age::{VERSION, decrypt_with_passphrase, encrypt_with_passphrase};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What is added to the name of a key file for that of its public half.
const PUBLIC_SUFFIX: &str = ".pub";
/// What PKCS#8 PEM begins with.
const PEM_START: &[u8] = b"-----BEGIN PRIVATE KEY-----";

/// Where passphrases come from. Only the command line asks people; a library never does.
pub trait Passphrase {
    /// The passphrase of a key file: of one that is to be read, or (`new`) of one that is to be written.
    ///
    /// # Errors
    /// When there is none to be had, by name.
    fn passphrase(&self, path: &Path, new: bool) -> Result<Zeroizing<String>, KeyError>;
}

/// Nobody is there: an encrypted key file is refused.
pub struct NoPassphrase;

impl Passphrase for NoPassphrase {
    fn passphrase(&self, path: &Path, _: bool) -> Result<Zeroizing<String>, KeyError> {
        Err(KeyError::Encrypted { path: path.to_owned() })
    }
}

fn given(path: &Path, source: &dyn Passphrase, new: bool) -> Result<Zeroizing<String>, KeyError> {
    let refused = |reason| Err(KeyError::Passphrase { path: path.to_owned(), reason });
    let passphrase = source.passphrase(path, new)?;
    match passphrase.len() as u64 {
        0 => refused("it is empty; give one of at least a few words"),
        1..=MAX_PASSPHRASE => Ok(passphrase),
        _ => refused("it is longer than 4096 bytes"),
    }
}

/// A key file in a directory.
#[derive(Debug)]
pub struct KeyFile {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it takes a passphrase to open it.
    pub is_encrypted: bool,
    /// Its permission bits.
    pub mode: u32,
    /// Its public half, where a file beside it says so, or it is not encrypted.
    pub public: Option<PublicKey>,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> KeyError + '_ {
    |source| KeyError::Io { path: path.to_owned(), source }
}

fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PUBLIC_SUFFIX);
    name.into()
}

/// Writes a new file that only its owner can read, durably.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), KeyError> {
    let failed = failed(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(&failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(&failed)
}

pub(crate) fn write_key(path: &Path, bytes: &[u8], public: &PublicKey) -> Result<(), KeyError> {
    // First, so that a secret key never stands beside another's public half.
    let beside = public_path(path);
    write_new(&beside, format!("{public}\n").as_bytes(), 0o644)?;
    write_new(path, bytes, 0o600).inspect_err(|_| {
        // It was made a moment ago, and is nothing without its key.
        let _ = fs::remove_file(&beside);
    })
}

/// The bytes of a file for a PEM, encrypted with a passphrase.
pub(crate) fn seal(path: &Path, pem: &str, source: &dyn Passphrase) -> Result<Vec<u8>, KeyError> {
    let passphrase = given(path, source, true)?;
    let mut failure = None;
    let mut random = |bytes: &mut [u8]| {
        if let Err(error) = getrandom::fill(bytes) {
            failure = Some(error);
        }
    };
    let sealed = encrypt_with_passphrase(pem.as_bytes(), &passphrase, KEY_WORK_FACTOR, &mut random);
    match failure {
        // What was sealed with bytes that are not random must not be used.
        Some(error) => Err(KeyError::Random(error)),
        None => sealed.map_err(|source| KeyError::Age { path: path.to_owned(), source }),
    }
}

fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), KeyError> {
    let failed = failed(path);
    let file = File::open(path).map_err(&failed)?;
    let mode = file.metadata().map_err(&failed)?.permissions().mode() & 0o777;
    // No growing below: it would leave pieces of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE as usize + 1));
    file.take(MAX_KEY_FILE).read_to_end(&mut bytes).map_err(&failed)?;
    Ok((bytes, mode))
}

fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(VERSION.as_bytes())
}

/// Writes a new file of mode 0600, durably.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<(), KeyError> {
    write_new(path, text.as_bytes(), 0o600)
}

/// Reads a small file that nobody but its owner may read.
///
/// # Errors
/// [`KeyError`], which names the file.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    match read(path)? {
        (_, mode) if mode & 0o077 != 0 => Err(KeyError::Exposed { path: path.to_owned(), mode }),
        (bytes, _) => Ok(bytes),
    }
}

/// The PEM of a key file.
pub(crate) fn read_key(path: &Path, source: &dyn Passphrase) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let bytes = read_private(path)?;
    if !is_encrypted(&bytes) {
        return Ok(bytes);
    }
    let passphrase = given(path, source, false)?;
    match decrypt_with_passphrase(&bytes, &passphrase) {
        Ok(Some(pem)) => Ok(Zeroizing::new(pem.to_vec())),
        Ok(None) => Err(KeyError::WrongPassphrase { path: path.to_owned() }),
        Err(source) => Err(KeyError::Age { path: path.to_owned(), source }),
    }
}

/// The public half that stands beside a key file; `None` where there is none.
fn beside(path: &Path) -> Result<Option<PublicKey>, KeyError> {
    let path = public_path(path);
    let mut text = String::new();
    match File::open(&path).and_then(|file| file.take(MAX_KEY_FILE).read_to_string(&mut text)) {
        Ok(_) => match text.trim().parse() {
            Ok(public) => Ok(Some(public)),
            Err(source) => Err(KeyError::PublicMalformed { path, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path)(error)),
    }
}

/// Who changed the public half beside a key would have others grant a key of theirs.
pub(crate) fn check_public(path: &Path, public: &PublicKey) -> Result<(), KeyError> {
    match beside(path)? {
        Some(found) if found != *public => Err(KeyError::PublicDiffers { path: public_path(path) }),
        _ => Ok(()),
    }
}

/// The public half of a key file. It is read from beside an encrypted one, so
/// that no passphrase is needed, and from the key itself where that is open.
///
/// # Errors
/// As [`SecretKey::open`].
pub fn public_key(path: &Path, passphrase: &dyn Passphrase) -> Result<PublicKey, KeyError> {
    let (bytes, _) = read(path)?;
    match beside(path)? {
        Some(public) if is_encrypted(&bytes) => Ok(public),
        _ => SecretKey::open(path, passphrase)?.public(),
    }
}

/// The key files of a directory, by name.
///
/// # Errors
/// When the directory cannot be read. Other files are passed over.
pub fn key_files(directory: &Path) -> Result<Vec<KeyFile>, KeyError> {
    let failed = failed(directory);
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(&failed)?.take(MAX_KEY_FILES) {
        let path = entry.map_err(&failed)?.path();
        if !path.is_file() {
            continue;
        }
        let Ok((bytes, mode)) = read(&path) else { continue };
        let is_encrypted = is_encrypted(&bytes);
        let public = match beside(&path) {
            Ok(Some(public)) if is_encrypted => Some(public),
            _ if bytes.starts_with(PEM_START) => {
                SecretKey::from_pem(&path, &bytes).and_then(|key| key.public()).ok()
            }
            _ => None,
        };
        if is_encrypted || public.is_some() {
            found.push(KeyFile { path, is_encrypted, mode, public });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
