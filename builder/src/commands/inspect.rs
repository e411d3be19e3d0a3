//! The command `inspect`: shows a manifest, or any other token.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use protocol::date::format_utc;
use protocol::token::{self, TOKEN_MAX, Unverified};
use serde_json::{Value, json};

use crate::diff::escape;
use crate::figures::{Figures, StageTime};
use crate::signing;

/// Options of "inspect".
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The file with the token, or "-" for standard input
    file: PathBuf,
    /// A key to check the signature with: a key string or @FILE; can be repeated
    #[arg(long = "trusted-key", value_name = "KEY")]
    trusted_keys: Vec<String>,
    /// Print header and claims as JSON
    #[arg(long)]
    json: bool,
}

impl InspectArgs {
    /// Prints the token. With keys, fails if its signature is not valid.
    pub(crate) fn run(self, out: &mut impl Write) -> Result<()> {
        let text = read(&self.file)?;
        let failed = || format!("reading {}", self.file.display());
        let token = token::decode_unverified(&text).with_context(failed)?;
        let verified = match self.trusted_keys.is_empty() {
            true => None,
            false => Some(token::verify(&text, &signing::ring(&self.trusted_keys)?)),
        };
        let signature = match &verified {
            None => "not checked; name the key with --trusted-key".to_owned(),
            Some(Ok(claims)) => format!("valid, by the key {}", claims.key_id()),
            Some(Err(error)) => format!("NOT VALID: {}", escape::plain(&error.to_string())),
        };
        let mut text = Vec::new();
        if self.json {
            let value = json!({
                "header": token.header,
                "claims": token.claims,
                "signature": signature,
                "verified": verified.as_ref().is_some_and(Result::is_ok),
            });
            writeln!(text, "{}", serde_json::to_string_pretty(&value)?)?;
        } else {
            print(&token, &signature, &mut text)?;
        }
        // The values are JSON, which escapes most control characters, but not all.
        out.write_all(escape::json(&String::from_utf8(text)?).as_bytes())?;
        verified.transpose().context("the signature is not valid").map(drop)
    }
}

fn read(path: &Path) -> Result<String> {
    let failed = || format!("reading {}", path.display());
    let mut text = String::new();
    let mut read = |from: &mut dyn Read| from.take(TOKEN_MAX as u64 + 1).read_to_string(&mut text);
    if path == Path::new("-") {
        read(&mut std::io::stdin().lock()).with_context(failed)?;
    } else {
        read(&mut File::open(path).with_context(failed)?).with_context(failed)?;
    }
    Ok(text)
}

/// Prints a token for people. The values are JSON.
fn print(token: &Unverified, signature: &str, out: &mut impl Write) -> Result<()> {
    writeln!(out, "signature: {signature}\nheader:")?;
    for (name, value) in &token.header {
        writeln!(out, "  {}: {value}", escape::plain(name))?;
    }
    writeln!(out, "claims:")?;
    for (name, value) in &token.claims {
        match name.as_str() {
            "iat" | "nbf" | "exp" => writeln!(out, "  {name}: {}", date(value))?,
            "etchaBuildManifest" => writeln!(out, "  {name}: {}", count_lines(value))?,
            "etchaPattern" => print_pattern(value, out)?,
            "etchaosRelease" => print_release(value, out)?,
            "etchaosFigures" => print_figures(value, out)?,
            _ => writeln!(out, "  {}: {value}", escape::plain(name))?,
        }
    }
    Ok(())
}

fn date(value: &Value) -> String {
    value.as_u64().map_or_else(|| value.to_string(), format_utc)
}

fn count_lines(value: &Value) -> String {
    match value.as_str() {
        Some(text) => format!("{} lines", text.lines().count()),
        None => value.to_string(),
    }
}

fn print_pattern(pattern: &Value, out: &mut impl Write) -> Result<()> {
    writeln!(out, "  etchaPattern: entrypoint {}", pattern["entrypoint"])?;
    for (name, content) in pattern["files"].as_object().into_iter().flatten() {
        let size = content.as_str().map_or(0, str::len);
        writeln!(out, "    {}: {size} bytes", json!(name))?;
    }
    Ok(())
}

/// Prints figures as tables. Prints figures of another form as JSON.
fn print_figures(claim: &Value, out: &mut impl Write) -> Result<()> {
    let Ok(Some(figures)) = Figures::from_json(claim) else {
        writeln!(out, "  etchaosFigures: {claim}")?;
        return Ok(());
    };
    writeln!(out, "  etchaosFigures:")?;
    for StageTime { name, took, cached } in &figures.stages {
        let cached = if *cached { ", partly from the cache" } else { "" };
        let name = escape::plain(name);
        writeln!(out, "    stage {name}: {:.1} s{cached}", took.as_secs_f64())?;
    }
    for line in figures.to_string().lines() {
        writeln!(out, "    {}", escape::plain(line))?;
    }
    Ok(())
}

fn print_release(release: &Value, out: &mut impl Write) -> Result<()> {
    writeln!(out, "  etchaosRelease:")?;
    for (name, value) in release.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            ("packages" | "bootloader", Value::Array(list)) => {
                writeln!(out, "    {name}: {}", list.len())?;
            }
            ("artifacts" | "documents", Value::Array(list)) => {
                writeln!(out, "    {name}:")?;
                for file in list {
                    writeln!(out, "      {} {} bytes", file["url"], file["size"])?;
                }
            }
            ("epoch", _) => writeln!(out, "    {name}: {}", date(value))?,
            _ => writeln!(out, "    {}: {value}", escape::plain(name))?,
        }
    }
    Ok(())
}
