//! The frames of a shell. Both sides read them from the network, so everything is bounded.

/// The largest payload in bytes.
pub const PAYLOAD_MAX: usize = 16 * 1024;
/// The type and the length.
const HEAD: usize = 3;
/// The longest value of TERM.
const TERM_MAX: usize = 64;

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub columns: u16,
    /// Rows.
    pub rows: u16,
}

/// The terminal of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Its size.
    pub size: Size,
    /// Its kind, for TERM: letters, digits and `-._+`.
    pub term: String,
}

/// A frame; see the [module](super).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Asks for a shell, with a terminal or with pipes.
    Open(Option<Terminal>),
    /// Bytes for standard input.
    Input(Vec<u8>),
    /// The end of standard input.
    InputEnd,
    /// The new size of the terminal.
    Window(Size),
    /// The sender is alive.
    Alive,
    /// Bytes of the terminal, or of standard output.
    Output(Vec<u8>),
    /// Bytes of standard error.
    ErrorOutput(Vec<u8>),
    /// The exit code.
    Exit(u8),
    /// Why there is no shell.
    Failed(String),
}

/// Bytes that are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There is no such type.
    #[error("it has the unknown type {0}")]
    Type(u8),
    /// The payload is longer than [`PAYLOAD_MAX`].
    #[error("it announces {0} bytes, more than {PAYLOAD_MAX}")]
    TooLong(usize),
    /// The payload is not that of its type.
    #[error("the payload of type {0} is not valid")]
    Payload(u8),
}

impl Frame {
    /// Appends the frame to `out`. Bytes that do not fit into one frame become several.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Open(None) => put(out, 1, &[]),
            Self::Open(Some(Terminal { size, term })) => {
                put(out, 1, &[&size.to_bytes()[..], term.as_bytes()].concat());
            }
            Self::Input(bytes) => put_all(out, 2, bytes),
            Self::InputEnd => put(out, 3, &[]),
            Self::Window(size) => put(out, 4, &size.to_bytes()),
            Self::Alive => put(out, 5, &[]),
            Self::Output(bytes) => put_all(out, 16, bytes),
            Self::ErrorOutput(bytes) => put_all(out, 17, bytes),
            Self::Exit(code) => put(out, 18, &[*code]),
            Self::Failed(reason) => {
                put(out, 19, &reason.as_bytes()[..reason.floor_char_boundary(PAYLOAD_MAX)]);
            }
        }
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let invalid = || FrameError::Payload(kind);
        let empty = |frame: Self| if payload.is_empty() { Ok(frame) } else { Err(invalid()) };
        match kind {
            1 if payload.is_empty() => Ok(Self::Open(None)),
            1 => Terminal::decode(payload).map(|it| Self::Open(Some(it))).ok_or_else(invalid),
            2 => Ok(Self::Input(payload.to_vec())),
            3 => empty(Self::InputEnd),
            4 => match payload.split_first_chunk() {
                Some((size, [])) => Ok(Self::Window(Size::from_bytes(*size))),
                _ => Err(invalid()),
            },
            5 => empty(Self::Alive),
            16 => Ok(Self::Output(payload.to_vec())),
            17 => Ok(Self::ErrorOutput(payload.to_vec())),
            18 => match payload {
                [code] => Ok(Self::Exit(*code)),
                _ => Err(invalid()),
            },
            19 => str::from_utf8(payload)
                .map(|reason| Self::Failed(reason.to_owned()))
                .map_err(|_| invalid()),
            other => Err(FrameError::Type(other)),
        }
    }
}

impl Size {
    fn to_bytes(self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.columns.to_be_bytes(), self.rows.to_be_bytes());
        [a, b, c, d]
    }

    fn from_bytes([a, b, c, d]: [u8; 4]) -> Self {
        Self { columns: u16::from_be_bytes([a, b]), rows: u16::from_be_bytes([c, d]) }
    }
}

impl Terminal {
    fn decode(payload: &[u8]) -> Option<Self> {
        let (size, term) = payload.split_first_chunk()?;
        let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._+".contains(byte);
        let term = Some(term).filter(|term| term.len() <= TERM_MAX && term.iter().all(is_valid))?;
        let term = str::from_utf8(term).ok()?.to_owned();
        Some(Self { size: Size::from_bytes(*size), term })
    }
}

fn put(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    out.push(kind);
    out.extend(length.to_be_bytes());
    out.extend(&payload[..usize::from(length)]);
}

fn put_all(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    bytes.chunks(PAYLOAD_MAX).for_each(|chunk| put(out, kind, chunk));
}

/// Splits a stream into frames. It keeps at most what was pushed since the last frame was taken, and the
/// beginning of one frame.
#[derive(Debug, Default)]
pub struct Decoder(Vec<u8>);

impl Decoder {
    /// Adds bytes of the stream. Take all frames before adding more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Takes the next frame, or returns `None` if it is not complete.
    ///
    /// # Errors
    /// Fails if the stream has something other than a frame. What follows cannot be read either.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some(([kind, high, low], rest)) = self.0.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let (kind, length) = (*kind, usize::from(u16::from_be_bytes([*high, *low])));
        if length > PAYLOAD_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let frame = Frame::decode(kind, payload)?;
        self.0.drain(..HEAD + length);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn size() -> impl Strategy<Value = Size> {
        any::<(u16, u16)>().prop_map(|(columns, rows)| Size { columns, rows })
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let bytes = || proptest::collection::vec(any::<u8>(), 1..100);
        let terminal = (size(), "[a-zA-Z0-9._+-]{0,64}");
        prop_oneof![
            Just(Frame::Open(None)),
            terminal.prop_map(|(size, term)| Frame::Open(Some(Terminal { size, term }))),
            bytes().prop_map(Frame::Input),
            Just(Frame::InputEnd),
            size().prop_map(Frame::Window),
            Just(Frame::Alive),
            bytes().prop_map(Frame::Output),
            bytes().prop_map(Frame::ErrorOutput),
            any::<u8>().prop_map(Frame::Exit),
            "\\PC{0,50}".prop_map(Frame::Failed),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_division_of_the_stream(
            frames in proptest::collection::vec(frame(), 0..10),
            chunk in 1usize..50,
        ) {
            let mut stream = Vec::new();
            frames.iter().for_each(|frame| frame.encode(&mut stream));
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for part in stream.chunks(chunk) {
                decoder.push(part);
                while let Some(frame) = decoder.take().unwrap() {
                    found.push(frame);
                }
            }
            prop_assert_eq!(found, frames);
            prop_assert!(decoder.0.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(stream in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&stream);
            while let Ok(Some(frame)) = decoder.take() {
                let mut again = Vec::new();
                frame.encode(&mut again);
                let mut decoder = Decoder::default();
                decoder.push(&again);
                // Empty input is encoded as nothing.
                let same = decoder.take().unwrap();
                prop_assert!(again.is_empty() || same == Some(frame));
            }
        }
    }

    #[test]
    fn long_bytes_become_several_frames() {
        let bytes = vec![7; 2 * PAYLOAD_MAX + 1];
        let mut stream = Vec::new();
        Frame::Output(bytes.clone()).encode(&mut stream);
        let mut decoder = Decoder::default();
        decoder.push(&stream);
        let mut found = Vec::new();
        while let Some(Frame::Output(part)) = decoder.take().unwrap() {
            assert!(part.len() <= PAYLOAD_MAX);
            found.extend(part);
        }
        assert_eq!(found, bytes);
        let mut failed = Vec::new();
        Frame::Failed("é".repeat(PAYLOAD_MAX)).encode(&mut failed);
        decoder.push(&failed);
        assert!(matches!(decoder.take(), Ok(Some(Frame::Failed(_)))));
    }

    #[test]
    fn refuses_what_is_no_frame() {
        let take = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.take()
        };
        assert_eq!(take(&[0, 0, 0]), Err(FrameError::Type(0)));
        assert_eq!(take(b"GET / HTTP/1.1"), Err(FrameError::TooLong(0x4554)));
        assert_eq!(take(&[2, 0x40, 1]), Err(FrameError::TooLong(PAYLOAD_MAX + 1)));
        for bad in [
            &[3, 0, 1, 0][..],
            &[4, 0, 3, 0, 1, 0],
            &[4, 0, 5, 0, 1, 0, 1, 0],
            &[1, 0, 5, 0, 80, 0, 24, b'\n'],
            &[1, 0, 1, 0],
            &[18, 0, 0],
            &[18, 0, 2, 0, 0],
            &[19, 0, 1, 0xff],
        ] {
            assert_eq!(take(bad), Err(FrameError::Payload(bad[0])), "{bad:?}");
        }
        assert_eq!(take(&[2, 0x40, 0]), Ok(None));
    }
}
