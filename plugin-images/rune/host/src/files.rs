//! The files a script may see: its source and its configuration to read, and `/tmp`.

use std::ffi::CString;
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const READABLE: [&str; 3] = ["plugin", "config", "tmp"];
const WRITABLE: [&str; 1] = ["tmp"];

/// Where `/plugin`, `/config` and `/tmp` are; `/` but for trying a plugin out.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Return a file's text. A path that does not begin with `/` is looked for in `/plugin`.
    pub fn read(&self, path: &str) -> Result<String> {
        let mut file = self.open(path, &READABLE, libc::O_RDONLY | libc::O_NONBLOCK)?;
        if !file.metadata()?.is_file() {
            return Err(Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Write a file below `/tmp`, anew.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NONBLOCK;
        self.open(path, &WRITABLE, flags)?.write_all(text.as_bytes())
    }

    /// Return the names in a folder, sorted.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let folder = self.open(path, &READABLE, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut names: Vec<String> = std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        names.sort();
        Ok(names)
    }

    /// Open a path so that the kernel lets nothing of it lead out of its top folder.
    fn open(&self, path: &str, tops: &[&str], flags: i32) -> Result<File> {
        let whole = Path::new("/plugin").join(path);
        let mut parts = whole.iter().skip(1);
        let top = parts.next().and_then(|name| name.to_str()).filter(|name| tops.contains(name));
        let Some(top) = top else {
            let known: Vec<String> = tops.iter().map(|name| format!("/{name}")).collect();
            let message = format!("not below {}", known.join(", "));
            return Err(Error::new(ErrorKind::PermissionDenied, message));
        };
        let rest = Path::new(".").join(parts.collect::<PathBuf>());
        let folder = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(self.root.join(top))?;
        open_beneath(&folder, &rest, flags)
    }
}

fn open_beneath(folder: &File, path: &Path, flags: i32) -> Result<File> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the structure is plain data, the pointers live through the call, the descriptor is new.
    unsafe {
        let mut how: libc::open_how = std::mem::zeroed();
        how.flags = (flags | libc::O_CLOEXEC) as u64;
        how.mode = if flags & libc::O_CREAT == 0 { 0 } else { 0o600 };
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
        let size = std::mem::size_of::<libc::open_how>();
        let opened = libc::syscall(libc::SYS_openat2, folder.as_raw_fd(), path.as_ptr(), &how, size);
        if opened < 0 {
            return Err(Error::last_os_error());
        }
        Ok(File::from_raw_fd(opened as i32))
    }
}
