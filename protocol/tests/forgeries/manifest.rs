//! Manifests with one invalid detail, signed by a trusted key.

use protocol::token::verify;
use protocol::{Manifest, Verified};

use crate::Signer;

const SHA256: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

impl Signer {
    fn read(&self, claims: &str) -> Result<Verified<Manifest>, String> {
        let claims = verify(&self.token(claims), &self.ring).map_err(|error| error.to_string())?;
        claims.try_into().map_err(|error: protocol::manifest::ManifestError| error.to_string())
    }
}

/// Returns the claims of a valid manifest.
fn valid_claims() -> String {
    let artifact = |role: &str| {
        format!(
            r#"{{"role":"{role}","name":"1.{role}","size":1000,"sha256":"{SHA256}","url":"1.{role}"}}"#
        )
    };
    format!(
        r#"{{"exp":2000000000,"etchaosRelease":{{"schema":1,"variant":"deb","arch":"amd64","version":"13.1","build":7,"epoch":1763600000,"kernel":"6.12","recipe":"{SHA256}","artifacts":[{},{}],"packages":[{{"name":"bash","version":"5.2","arch":"amd64"}}]}}}}"#,
        artifact("kernel"),
        artifact("initrd"),
    )
}

#[test]
fn rejects_a_manifest_with_one_invalid_detail() {
    let (signer, valid) = (Signer::new(), valid_claims());
    assert_eq!(signer.read(&valid).unwrap().release.build, 7);
    let upper = SHA256.to_uppercase();
    for (from, to) in [
        // Sizes and other numbers.
        (r#""size":1000"#, r#""size":0"#),
        (r#""size":1000"#, r#""size":-0"#),
        (r#""size":1000"#, r#""size":-1000"#),
        (r#""size":1000"#, r#""size":1000.0"#),
        (r#""size":1000"#, r#""size":1e3"#),
        (r#""size":1000"#, r#""size":"1000""#),
        (r#""size":1000"#, r#""size":null"#),
        (r#""size":1000"#, r#""size":[1000]"#),
        (r#""size":1000"#, r#""size":4294967296"#),
        (r#""size":1000"#, r#""size":18446744073709551615"#),
        (r#""size":1000"#, r#""size":18446744073709552616"#),
        (r#""size":1000,"#, ""),
        (r#""build":7"#, r#""build":7.0"#),
        (r#""build":7"#, r#""build":-7"#),
        (r#""build":7"#, r#""build":"7""#),
        (r#""build":7"#, r#""build":null"#),
        (r#""epoch":1763600000"#, r#""epoch":1.7636e9"#),
        (r#""epoch":1763600000"#, r#""epoch":-1"#),
        (r#""schema":1,"#, r#""schema":1.0,"#),
        (r#""schema":1,"#, r#""schema":true,"#),
        (r#""schema":1,"#, r#""schema":4294967297,"#),
        (r#""schema":1,"#, ""),
        // Duplicate names.
        (r#""size":1000"#, r#""size":1000,"size":1000"#),
        (r#""size":1000"#, r#""size":1000,"siz\u0065":2000"#),
        (r#""url":"1.kernel""#, r#""url":"1.kernel","url":"2.kernel""#),
        (r#""build":7"#, r#""build":7,"build":8"#),
        (r#""build":7"#, r#""build":7,"\u0062uild":8"#),
        (r#""version":"5.2""#, r#""version":"5.2","version":"5.3""#),
        (r#""schema":1,"#, r#""schema":1,"x":{"y":[{"a":1,"a":1}]},"#),
        // Roles.
        (r#""role":"initrd""#, r#""role":"kernel""#),
        (r#""role":"initrd""#, r#""role":"disk""#),
        (r#""role":"initrd""#, r#""role":"firmware""#),
        (r#""role":"initrd""#, r#""role":"Initrd""#),
        (r#""role":"initrd""#, r#""role":"""#),
        (r#""role":"initrd""#, r#""role":null"#),
        (r#""role":"initrd""#, r#""role":["initrd"]"#),
        (r#""role":"initrd""#, r#""role":{"initrd":null}"#),
        (r#""arch":"amd64","version":"13.1""#, r#""arch":{"amd64":null},"version":"13.1""#),
        (r#""artifacts":["#, r#""artifacts":[null,"#),
        (r#""artifacts":["#, r#""artifacts":[[],"#),
        // Digests.
        (SHA256, &upper),
        (SHA256, &SHA256[1..]),
        (SHA256, &format!("{SHA256}0")),
        (SHA256, &format!("{} ", &SHA256[1..])),
        (SHA256, &format!("0x{}", &SHA256[2..])),
        (SHA256, ""),
        // Texts that become parts of file names, lines and URLs.
        (r#""name":"1.kernel""#, r#""name":"../kernel""#),
        (r#""name":"1.kernel""#, r#""name":"..""#),
        (r#""name":"1.kernel""#, r#""name":".kernel""#),
        (r#""name":"1.kernel""#, r#""name":"a/b""#),
        (r#""name":"1.kernel""#, r#""name":"a\\b""#),
        (r#""name":"1.kernel""#, r#""name":"a\u0000b""#),
        (r#""name":"1.kernel""#, r#""name":"a\u2215b""#),
        (r#""name":"1.kernel""#, r#""name":"\uff0e\uff0e""#),
        (r#""name":"1.kernel""#, r#""name":"a b""#),
        (r#""name":"1.kernel""#, r#""name":"""#),
        (r#""url":"1.kernel""#, r#""url":"""#),
        (r#""url":"1.kernel""#, r#""url":null"#),
        (r#""version":"13.1""#, r#""version":"13.1\n""#),
        (r#""version":"13.1""#, r#""version":"13.1\u001b[2J""#),
        (r#""version":"13.1""#, r#""version":"\u202e1.31""#),
        (r#""kernel":"6.12""#, r#""kernel":"6.12 x""#),
        (r#""name":"bash""#, r#""name":"bash\n""#),
        // The target.
        (r#""variant":"deb""#, r#""variant":"../deb""#),
        (r#""variant":"deb""#, r#""variant":"DEB""#),
        (r#""variant":"deb""#, r#""variant":"""#),
        (r#""arch":"amd64","version":"13.1""#, r#""arch":"AMD64","version":"13.1""#),
        (r#""arch":"amd64","version":"13.1""#, r#""arch":"","version":"13.1""#),
    ] {
        let bad = valid.replacen(from, to, 1);
        assert_ne!(bad, valid, "{from}");
        if let Ok(read) = signer.read(&bad) {
            panic!("accepted: {to}: {:?}", read.release);
        }
    }
}

/// serde reads a list of the field values as a struct, which must not be possible in a manifest.
#[test]
fn rejects_a_list_in_place_of_an_object() {
    let (signer, valid) = (Signer::new(), valid_claims());
    let part = |from: &str, to: &str| {
        let start = valid.find(from).unwrap() + from.len();
        &valid[start..start + valid[start..].find(to).unwrap()]
    };
    let release = format!(r#"{{"schema"{}}}]}}"#, part(r#"{"schema""#, "}]}}"));
    let package = part(r#""packages":["#, "]");
    let kernel = part(r#""artifacts":["#, r#",{"role":"initrd""#);
    let initrd = part(&format!("{kernel},"), "]");
    for (object, list) in [
        (kernel, format!(r#"["kernel","1.kernel",1000,"{SHA256}","1.kernel"]"#)),
        (package, r#"["bash","5.2","amd64"]"#.to_owned()),
        (
            &release,
            format!(
                r#"[1,"deb","amd64","13.1",7,1763600000,"6.12","{SHA256}",[{kernel},{initrd}],[{package}],[]]"#
            ),
        ),
    ] {
        let bad = valid.replacen(object, &list, 1);
        assert_ne!(bad, valid, "{object}");
        let error = signer.read(&bad).err().unwrap_or_else(|| panic!("accepted: {list}"));
        assert!(error.contains("expected an object"), "{error}");
    }
}
