//! The shim over SQLite's own Unix VFS. All unsafe code is here: C calls these functions, and they
//! call C.

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rusqlite::ffi;

use crate::disk::{Change, Disk, IsLasting};

/// SQLite's own VFS, and its own function that opens a directory.
struct Real {
    vfs: *mut ffi::sqlite3_vfs,
    open_directory: OpenDirectory,
}

// SAFETY: both are set once, by `install`, and SQLite allows any thread to use its VFS.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

static REAL: OnceLock<Real> = OnceLock::new();

type OpenDirectory = unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int;

thread_local! {
    /// Whether SQLite opened a directory, which it does only to sync it.
    static DIRECTORY_OPENED: Cell<bool> = const { Cell::new(false) };
}

/// Our part of a file, before SQLite's own part in the same memory.
#[repr(C)]
struct File {
    methods: *const ffi::sqlite3_io_methods,
    watched: *mut Watched,
}

/// The disk of a file, and the file's name on it.
struct Watched {
    disk: Arc<Disk>,
    name: String,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 2: with shared memory, without mapping the database.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes this VFS the default of the process, for connections that are opened later.
///
/// # Panics
/// SQLite refuses it.
pub fn install() {
    REAL.get_or_init(|| {
        // SAFETY: SQLite returns a VFS that lives as long as the process. It has the three
        // functions since version 3, which the Unix VFS is, and its "openDirectory" has this type
        // (os_unix.c). Ours is created once and never freed.
        unsafe {
            let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!vfs.is_null() && (*vfs).iVersion >= 3, "SQLite has no VFS of version 3");
            let name = c"openDirectory".as_ptr();
            let found = (*vfs).xGetSystemCall.and_then(|get| get(vfs, name)).expect("a Unix VFS");
            let open_directory = std::mem::transmute::<unsafe extern "C" fn(), OpenDirectory>(found);
            let ours = std::mem::transmute::<OpenDirectory, unsafe extern "C" fn()>(note_directory);
            let set = (*vfs).xSetSystemCall.map(|set| set(vfs, name, Some(ours)));
            assert_eq!(set, Some(ffi::SQLITE_OK), "openDirectory cannot be watched");
            let shim = Box::leak(Box::new(*vfs));
            shim.zName = c"lossy".as_ptr();
            shim.pNext = std::ptr::null_mut();
            shim.szOsFile = (*vfs).szOsFile + size_of::<File>() as c_int;
            shim.xOpen = Some(open);
            shim.xDelete = Some(delete);
            // The other functions are SQLite's own. They do not use the VFS that they get as an
            // argument.
            assert_eq!(ffi::sqlite3_vfs_register(shim, 1), ffi::SQLITE_OK);
            Real { vfs, open_directory }
        }
    });
}

fn real() -> &'static Real {
    REAL.get().expect("SQLite calls us after `install`")
}

unsafe extern "C" fn note_directory(path: *const c_char, descriptor: *mut c_int) -> c_int {
    DIRECTORY_OPENED.set(true);
    // SAFETY: SQLite's own arguments for SQLite's own function. `install` has set it before SQLite
    // can sync a file of ours.
    unsafe { (real().open_directory)(path, descriptor) }
}

/// Returns SQLite's own part of a file.
unsafe fn behind(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `install` requested this much memory after `File`. The size of `File` is a multiple
    // of a pointer's alignment.
    unsafe { file.cast::<u8>().add(size_of::<File>()).cast() }
}

unsafe fn watched<'a>(file: *mut ffi::sqlite3_file) -> Option<&'a Watched> {
    // SAFETY: SQLite passes files that `open` filled, until `close`.
    unsafe { (*file.cast::<File>()).watched.as_ref() }
}

/// Calls a method of SQLite's own file.
macro_rules! really {
    ($file:ident, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite's own file is open, so its methods are set. The arguments are those that
        // SQLite gave.
        unsafe {
            let file = behind($file);
            match (*(*file).pMethods).$method {
                Some(method) => method(file $(, $argument)*),
                None => Default::default(),
            }
        }
    }};
}

unsafe fn path<'a>(name: *const c_char) -> Option<&'a Path> {
    // SAFETY: SQLite's file names end with a zero byte; a temporary file has no name.
    (!name.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite's arguments are passed on. `file` has the size that `install` requested.
    unsafe {
        let ours = file.cast::<File>();
        (*ours).methods = std::ptr::null();
        (*ours).watched = std::ptr::null_mut();
        let found = path(name).and_then(Disk::of);
        if let Some((disk, name)) = &found {
            if disk.is_cut() {
                return ffi::SQLITE_CANTOPEN;
            }
            disk.open(name);
        }
        let Some(open) = (*real().vfs).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = open(real().vfs, name, behind(file), flags, out_flags);
        if code == ffi::SQLITE_OK {
            (*ours).methods = &METHODS;
            if let Some((disk, name)) = found {
                (*ours).watched = Box::into_raw(Box::new(Watched { disk, name }));
            }
        }
        code
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync_directory: c_int) -> c_int {
    let really = || {
        // SAFETY: SQLite's arguments are passed on.
        unsafe { (*real().vfs).xDelete.map_or(ffi::SQLITE_IOERR, |delete| delete(real().vfs, name, 0)) }
    };
    // SAFETY: a file's name.
    match unsafe { path(name) }.and_then(Disk::of) {
        None => really(),
        Some((disk, name)) => {
            disk.delete(&name, sync_directory != 0, really).unwrap_or(ffi::SQLITE_IOERR_DELETE)
        }
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = really!(file, xClose);
    // SAFETY: `open` created it, and SQLite closes a file once.
    unsafe {
        let ours = file.cast::<File>();
        if !(*ours).watched.is_null() {
            drop(Box::from_raw((*ours).watched));
        }
        (*ours).watched = std::ptr::null_mut();
        (*ours).methods = std::ptr::null();
    }
    code
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, amount: c_int, at: i64) -> c_int {
    // SAFETY: an open file.
    if unsafe { watched(file) }.is_some_and(|file| file.disk.is_cut()) {
        return ffi::SQLITE_IOERR_READ;
    }
    really!(file, xRead, to, amount, at)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    at: i64,
) -> c_int {
    let really = || really!(file, xWrite, from, amount, at);
    // SAFETY: an open file.
    let Some(watched) = (unsafe { watched(file) }) else { return really() };
    // SAFETY: SQLite passes `amount` bytes to write.
    let bytes =
        unsafe { std::slice::from_raw_parts(from.cast::<u8>(), amount.unsigned_abs() as usize) }.to_vec();
    let change = Change::Write { at: at.unsigned_abs() as usize, bytes };
    watched.disk.change(&watched.name, change, really).unwrap_or(ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    let really = || really!(file, xTruncate, len);
    // SAFETY: an open file.
    let Some(watched) = (unsafe { watched(file) }) else { return really() };
    let change = Change::Truncate { len: len.unsigned_abs() as usize };
    watched.disk.change(&watched.name, change, really).unwrap_or(ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: an open file.
    let Some(watched) = (unsafe { watched(file) }) else { return ffi::SQLITE_OK };
    let really = |is_lasting| match is_lasting {
        IsLasting::Yes => (ffi::SQLITE_OK, false),
        // SQLite syncs the directory at the first sync of a file that it created.
        IsLasting::No => {
            DIRECTORY_OPENED.set(false);
            (really!(file, xSync, flags), DIRECTORY_OPENED.get())
        }
    };
    watched.disk.sync(&watched.name, really).unwrap_or(ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, code: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: an open file.
    let is_normal = unsafe { watched(file) }.is_some_and(|watched| watched.disk.is_normal());
    if code == ffi::SQLITE_FCNTL_PRAGMA && is_normal {
        // SAFETY: for this code SQLite passes an array of strings: the answer, the pragma's name,
        // and its value or null. The value is a copy for this call, freed after it, and no pragma's
        // value here is empty.
        unsafe {
            let strings = argument.cast::<*mut c_char>();
            let (name, value) = (*strings.add(1), *strings.add(2));
            let is_asked = CStr::from_ptr(name).to_bytes().eq_ignore_ascii_case(b"synchronous");
            if is_asked && !value.is_null() && *value != 0 {
                *value = b'1' as c_char;
                *value.add(1) = 0;
            }
        }
    }
    really!(file, xFileControl, code, argument)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    really!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    really!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    really!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    really!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    really!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    really!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    to: *mut *mut c_void,
) -> c_int {
    really!(file, xShmMap, region, size, extend, to)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    really!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    really!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    really!(file, xShmUnmap, delete)
}
