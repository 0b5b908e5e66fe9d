//! What is published: small trees that change at random, written where the real
//! bundler reads them.

use crate::checks::Bundles;
use crate::random::Random;
use std::io;
use std::path::{Path, PathBuf};

/// Roles of hosts.
pub const ROLES: [&str; 2] = ["web", "db"];

/// A source that changes.
#[derive(Debug)]
pub struct Content {
    directory: PathBuf,
    random: Random,
    bundles: Bundles,
    /// Directories that may have files: one for each layer.
    places: Vec<String>,
}

impl Content {
    /// An empty source in a directory, for hosts of these regions and names.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn new(directory: &Path, random: Random, regions: usize, hosts: &[String]) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let settings = "layers = [\"base\", \"region/{region}\", \"role/{role}\", \"host/{host}\"]\n";
        std::fs::write(directory.join("rootcast.toml"), settings)?;
        let mut places = vec!["base".to_owned()];
        places.extend((0..regions).map(|region| format!("region/r{region}")));
        places.extend(ROLES.map(|role| format!("role/{role}")));
        places.extend(hosts.iter().take(4).map(|host| format!("host/{host}")));
        let mut content = Self { directory: directory.to_owned(), random, bundles: Bundles::new(), places };
        // What never goes away, so that no release is empty, and each host has some of each layer.
        for place in content.places.clone() {
            let text = content.random.text(40);
            content.put(&place, "always", Some(text))?;
        }
        Ok(content)
    }

    fn put(&mut self, place: &str, name: &str, text: Option<String>) -> io::Result<()> {
        let path = self.directory.join(place).join(name);
        let bundle = self.bundles.entry(place.to_owned()).or_default();
        match text {
            Some(text) => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                std::fs::write(&path, &text)?;
                bundle.insert(name.to_owned(), text);
            }
            None if bundle.remove(name).is_some() => std::fs::remove_file(&path)?,
            None => {}
        }
        Ok(())
    }

    /// Adds a file of so many bytes to what all hosts have.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_large(&mut self, length: usize) -> io::Result<()> {
        let text = self.random.text(length);
        self.put("base", "large", Some(text))
    }

    /// Changes some files, at least one, and says what there is then.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn change(&mut self) -> io::Result<Bundles> {
        for number in 0..1 + self.random.below(4) {
            let at = self.random.below(self.places.len());
            let place = self.places.get(at).cloned().unwrap_or_default();
            let name = match self.random.below(3) {
                0 => format!("f{}", self.random.below(4)),
                1 => format!("d{}/f{}", self.random.below(3), self.random.below(4)),
                _ => "shared".to_owned(),
            };
            // Now and then one that takes many datagrams.
            let length = if self.random.chance(0.03) { 60_000 } else { 1 + self.random.below(1500) };
            let text = self.random.text(length);
            let goes = number > 0 && self.random.chance(0.25);
            self.put(&place, &name, (!goes).then_some(text))?;
        }
        Ok(self.bundles.clone())
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}
