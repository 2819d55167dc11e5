use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use animatediff::train::board::Board;
use protobuf::Message;
use tempfile::tempdir;
use tensorboard_proto::event::{Event, SessionLog_SessionStatus};

use crate::child;

/// Reads a file's records back, with their checksums.
fn events(path: &Path) -> Vec<Event> {
    use tensorboard_rs::masked_crc32c::masked_crc32c;
    let content = fs::read(path).unwrap();
    let (mut rest, mut events) = (&content[..], Vec::new());
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        assert_eq!(rest[8..12], masked_crc32c(&rest[..8]).to_le_bytes());
        let data = &rest[12..12 + length];
        assert_eq!(rest[12 + length..16 + length], masked_crc32c(data).to_le_bytes());
        events.push(Event::parse_from_bytes(data).unwrap());
        rest = &rest[16 + length..];
    }
    events
}

/// What TensorBoard shows of a folder: of each tag and step the point, as bytes. A later start takes back what was written for
/// its step and later. What a clock or a name decides is left out.
pub fn curves(dir: &Path) -> BTreeMap<(String, i64), Vec<u8>> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut shown = BTreeMap::new();
    for event in files.iter().flat_map(|file| events(file)) {
        let step = event.get_step();
        if event.has_session_log() {
            shown.retain(|(_, earlier), _| *earlier < step);
        }
        for value in event
            .get_summary()
            .get_value()
            .iter()
            .filter(|value| !["clips_per_second", "config"].contains(&value.get_tag()))
        {
            let twice = shown.insert((value.get_tag().to_owned(), step), value.write_to_bytes().unwrap());
            assert!(twice.is_none(), "{} of step {step} is there twice", value.get_tag());
        }
    }
    shown
}

#[test]
fn what_is_written_reads_back() {
    let dir = tempdir().unwrap();
    let mut board = Board::create(dir.path(), None).unwrap();
    board.scalar("train_loss", 7, 0.25).unwrap();
    board.image_png("sanity/0", 8, b"\x89PNG", 64, 32).unwrap();
    board.animation_gif("samples/0", 9, b"GIF89a", 16, 24).unwrap();
    board.text("config", 0, "a: 1").unwrap();
    let events = events(board.path());
    assert_eq!(events[0].get_file_version(), "brain.Event:2");
    assert!(events[1].has_session_log());
    let value = |index: usize| &events[index + 1].get_summary().get_value()[0];
    assert_eq!((value(1).get_tag(), events[2].get_step(), value(1).get_simple_value()), ("train_loss", 7, 0.25));
    let image = value(2).get_image();
    assert_eq!((image.get_width(), image.get_height(), image.get_encoded_image_string()), (64, 32, &b"\x89PNG"[..]));
    assert_eq!(value(3).get_image().get_encoded_image_string(), b"GIF89a");
    assert_eq!(value(4).get_tensor().get_string_val()[0], b"a: 1");
    assert_eq!(value(4).get_metadata().get_plugin_data().get_plugin_name(), "text");
    assert_eq!(events.len(), 6);
}

#[test]
fn a_resumed_run_starts_a_later_file_that_purges() {
    let dir = tempdir().unwrap();
    let first = Board::create(dir.path(), None).unwrap().path().to_owned();
    let second = Board::create(dir.path(), Some(61)).unwrap().path().to_owned();
    assert!(first < second, "{first:?} {second:?}");
    // Python's TensorBoard takes the first start for the beginning of the run, so both files need one.
    assert_eq!(events(&first)[1].get_session_log().get_status(), SessionLog_SessionStatus::START);
    let start = &events(&second)[1];
    assert_eq!((start.get_step(), start.get_session_log().get_status()), (61, SessionLog_SessionStatus::START));
}

#[test]
fn a_full_disk_is_an_error_and_what_follows_stays_readable() {
    if let Some(dir) = child::folder() {
        let mut board = Board::create(&dir, None).unwrap();
        child::limit_file_size(4096);
        board.scalar("a", 1, 1.0).unwrap();
        let message = format!("{:#}", board.image_png("b", 1, &[7; 5000], 1, 1).unwrap_err());
        assert!(message.contains("events.out.tfevents"), "{message}");
        board.scalar("a", 2, 2.0).unwrap();
        return;
    }
    let dir = tempdir().unwrap();
    let name = "board::a_full_disk_is_an_error_and_what_follows_stays_readable";
    assert!(child::spawn(name, dir.path()).wait().unwrap().success());
    let file = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    assert_eq!(events(&file).iter().map(Event::get_step).collect::<Vec<_>>(), [0, 0, 1, 2]);
}
