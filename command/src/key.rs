//! `rootcast key`

use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::passphrase::Asking;
use clap::Subcommand;
use rootcast::cose::PublicKey;
use rootcast_keys::{KeyError, SecretKey, key_files, public_key};
use serde_json::{Value, json};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a secret key, encrypted with a passphrase
    New {
        /// The file to write; its public half goes beside it, with `.pub` added to the name
        file: PathBuf,
        /// Do not encrypt it: for a machine on which nobody can type a passphrase
        #[arg(long)]
        unencrypted: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Show the public half of a key, as `trust propose` takes it
    Show {
        /// The key file
        file: PathBuf,
        #[command(flatten)]
        asking: Asking,
    },
    /// List the keys of a directory
    List {
        /// The directory
        directory: PathBuf,
    },
    /// Take in an Ed25519 key in PKCS#8 PEM, as `openssl genpkey -algorithm ed25519` makes it
    Import {
        /// The PEM file
        pem: PathBuf,
        /// The key file to write
        out: PathBuf,
        /// Do not encrypt it
        #[arg(long)]
        unencrypted: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Write a key as PKCS#8 PEM, not encrypted
    Export {
        /// The key file
        file: PathBuf,
        /// Where to; `-` is standard output, even if that is a terminal
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
}

pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::New { file, unencrypted, asking } => {
            save(&SecretKey::generate()?, file, *unencrypted, asking, output)
        }
        Verb::Show { file, asking } => {
            show(file, &public_key(file, asking)?, output);
            Ok(())
        }
        Verb::List { directory } => list(directory, output),
        Verb::Import { pem, out, unencrypted, asking } => {
            save(&SecretKey::open(pem, asking)?, out, *unencrypted, asking, output)
        }
        Verb::Export { file, out, asking } => export(file, out.as_deref(), asking, output),
    }
}

fn save(
    key: &SecretKey,
    file: &Path,
    unencrypted: bool,
    asking: &Asking,
    output: &Output,
) -> Result<(), Failure> {
    if file.exists() {
        let message = format!("{} is there already, and no key is ever written over", file.display());
        return Err(Failure::new(Exit::Failure, message).next("give another name"));
    }
    if unencrypted {
        key.save(file)?
    } else {
        key.save_encrypted(file, asking)?
    }
    show(file, &key.public()?, output);
    Ok(())
}

fn fields(file: &Path, public: &PublicKey) -> Value {
    json!({ "file": file, "id": public.id().to_string(), "public": public.to_string() })
}

fn show(file: &Path, public: &PublicKey, output: &Output) {
    output.value(&fields(file, public));
    output.line(format!("file    {}", file.display()));
    output.line(format!("id      {}", public.id()));
    output.line(format!("public  {public}"));
}

fn list(directory: &Path, output: &Output) -> Result<(), Failure> {
    let found = key_files(directory)?;
    let rows: Vec<Value> = found
        .iter()
        .map(|key| {
            json!({
                "file": key.path, "encrypted": key.is_encrypted, "mode": format!("{:03o}", key.mode),
                "id": key.public.as_ref().map(|public| public.id().to_string()),
                "public": key.public.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    output.value(&json!({ "keys": rows }));
    for key in &found {
        let kind = if key.is_encrypted { "encrypted" } else { "open" };
        let exposed = if key.mode & 0o077 == 0 { "" } else { "   others can read it: run chmod 600 on it" };
        let id = key.public.as_ref().map_or_else(|| "not known".into(), |public| public.id().to_string());
        output.line(format!("{id:16}  {kind:9}  {}{exposed}", key.path.display()));
    }
    if found.is_empty() {
        output.line(format!("{} holds no key", directory.display()));
    }
    Ok(())
}

fn export(file: &Path, out: Option<&Path>, asking: &Asking, output: &Output) -> Result<(), Failure> {
    let is_asked_for = out.is_some_and(|out| out == Path::new("-"));
    if out.is_none() && io::stdout().is_terminal() {
        let message = "a secret key is not shown on a terminal";
        return Err(Failure::new(Exit::Usage, message)
            .next("name a file with --out FILE, or say --out - to have it shown"));
    }
    let key = SecretKey::open(file, asking)?;
    if let Some(out) = out.filter(|_| !is_asked_for) {
        return save(&key, out, true, asking, output);
    }
    let pem = key.to_pem(file)?;
    if output.json {
        output.value(&json!({ "pem": *pem }));
        return Ok(());
    }
    let failed = |source| KeyError::Io { path: PathBuf::from("standard output"), source };
    io::stdout().write_all(pem.as_bytes()).map_err(failed)?;
    Ok(())
}
