//! Reading frame by frame, writing, and what damaged or foreign files do.

use std::fs;
use std::path::Path;
#[cfg(feature = "ffmpeg")]
use std::path::PathBuf;

use animatediff::clip::{Clip, check_target};
use animatediff::frame::Frame;
use tempfile::TempDir;

/// Frames are 16 cells of black and white, which show the bits of the frame's number and of its complement.
const CELL: usize = 16;

/// A frame from which [`number_of`] reads `number`, below 256, after any sane encoder.
pub fn numbered(number: usize) -> Frame {
    let mut frame = Frame::filled(8 * CELL, 2 * CELL, [0; 3]);
    for y in 0..frame.height {
        for x in 0..frame.width {
            let bit = number >> (x / CELL) & 1 == 1;
            if bit == (y < CELL) {
                let at = 3 * (y * frame.width + x);
                frame.rgb[at..at + 3].fill(255);
            }
        }
    }
    frame
}

#[cfg(feature = "ffmpeg")]
/// The number in the frame, or `None` if it is not one of [`numbered`]'s.
pub fn number_of(frame: &Frame) -> Option<usize> {
    let white = |cell: usize, row: usize| frame.pixel(cell * CELL + CELL / 2, row * CELL + CELL / 2)[1] > 128;
    (0..8)
        .all(|cell| white(cell, 0) != white(cell, 1))
        .then(|| (0..8).map(|cell| usize::from(white(cell, 0)) << cell).sum())
}

/// A clip whose frames tell their number.
pub fn counting(frames: usize, fps: f64) -> Clip {
    Clip { frames: (0..frames).map(numbered).collect(), fps }
}

pub fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The message with all its causes, as the program prints it.
fn message(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_grid_has_the_layout_of_make_grid() {
    let clip = |colour| Clip { frames: vec![Frame::filled(3, 2, [colour; 3])], fps: 8.0 };
    let grid = Clip::grid(&[clip(1), clip(2), clip(3)], 2);
    let frame = &grid.frames[0];
    // Two columns and two rows of 3x2, each with two pixels after it, and two before all of them.
    assert_eq!((frame.width, frame.height), (2 * 5 + 2, 2 * 4 + 2));
    assert_eq!(frame.pixel(2, 2), [1; 3]);
    assert_eq!(frame.pixel(4, 3), [1; 3]);
    assert_eq!(frame.pixel(5, 2), [0; 3]);
    assert_eq!(frame.pixel(7, 2), [2; 3]);
    assert_eq!(frame.pixel(2, 6), [3; 3]);
    assert_eq!(frame.pixel(7, 6), [0; 3], "the last cell stays black");
    assert_eq!(frame.rgb.iter().filter(|byte| **byte > 0).count(), 3 * 6 * 3);
    assert_eq!(Clip::grid(&[clip(7)], 6).frames[0], Frame::filled(3, 2, [7; 3]), "one clip gets no frame around it");
}

#[test]
fn a_shorter_clip_in_a_grid_holds_its_last_frame() {
    let grid = Clip::grid(&[counting(1, 8.0), counting(3, 8.0)], 2);
    assert_eq!(grid.frames.len(), 3);
    let cell = |frame: &Frame, column: usize| frame.pixel(2 + column * (8 * CELL + 2) + CELL / 2, 2 + CELL / 2);
    assert_eq!(cell(&grid.frames[1], 0), numbered(0).pixel(CELL / 2, CELL / 2));
    assert_eq!(cell(&grid.frames[1], 1), numbered(1).pixel(CELL / 2, CELL / 2));
}

#[test]
fn frames_are_saved_as_numbered_pngs_and_replace_only_frames() {
    let folder = folder();
    let target = folder.path().join("frames");
    counting(3, 8.0).save(&target).unwrap();
    assert_eq!(names_in(&target), ["0000.png", "0001.png", "0002.png"]);
    assert_eq!(image::open(target.join("0002.png")).unwrap().into_rgb8().into_raw(), numbered(2).rgb);
    counting(2, 8.0).save(&target).unwrap();
    assert_eq!(names_in(&target), ["0000.png", "0001.png"], "no frame of the earlier, longer clip is left");
    assert_eq!(names_in(folder.path()), ["frames"]);
    fs::write(target.join("notes.txt"), "mine").unwrap();
    for error in [counting(2, 8.0).save(&target).unwrap_err(), check_target(&target).unwrap_err()] {
        assert!(message(error).contains("something other than numbered frames (notes.txt)"));
    }
}

#[test]
fn a_gif_of_few_colours_is_exact_loops_and_keeps_its_length() {
    let folder = folder();
    let path = folder.path().join("clip.gif");
    let clip = counting(7, 12.0);
    clip.save(&path).unwrap();
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(fs::File::open(&path).unwrap()).unwrap();
    let (mut total, mut number) = (0, 0);
    while let Some(frame) = decoder.read_next_frame().unwrap() {
        let rgb: Vec<u8> = frame.buffer.chunks(4).flat_map(|rgba| rgba[..3].to_vec()).collect();
        assert_eq!(rgb, clip.frames[number].rgb, "frame {number}");
        total += u32::from(frame.delay);
        number += 1;
    }
    assert_eq!(number, 7);
    // 7 frames at 12 per second are 58.3 hundredths; each delay rounded by itself would give 56.
    assert_eq!(total, 58);
    assert_eq!(decoder.repeat(), gif::Repeat::Infinite);
}

#[test]
fn a_gif_of_many_colours_stays_close() {
    let folder = folder();
    let path = folder.path().join("clip.gif");
    let mut frame = Frame::filled(96, 96, [0; 3]);
    for (at, pixel) in frame.rgb.chunks_mut(3).enumerate() {
        pixel.copy_from_slice(&[(at % 96 * 2) as u8, (at / 96 * 2) as u8, 90]);
    }
    Clip { frames: vec![frame.clone(); 2], fps: 8.0 }.save(&path).unwrap();
    let mut options = gif::DecodeOptions::new();
    options.set_color_output(gif::ColorOutput::RGBA);
    let mut decoder = options.read_info(fs::File::open(&path).unwrap()).unwrap();
    let shown = decoder.read_next_frame().unwrap().unwrap().buffer.to_vec();
    let rgb = shown.chunks(4).flat_map(|rgba| rgba[..3].to_vec());
    let squares: f64 = rgb.zip(&frame.rgb).map(|(a, b)| (f64::from(a) - f64::from(*b)).powi(2)).sum();
    let error = (squares / frame.rgb.len() as f64).sqrt();
    assert!(error < 8.0, "{error} levels off, root mean square");
}

#[test]
fn targets_are_checked_before_work_starts() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for good in ["a.gif", "new/folder/a.gif", "frames", "new/frames"] {
        check_target(&at(good)).unwrap_or_else(|error| panic!("{good}: {error:#}"));
    }
    assert!(!at("new").exists(), "checking makes nothing");
    let unknown = message(check_target(&at("a.avi")).unwrap_err());
    assert!(unknown.contains("not written as `.avi`; use .mp4, .webp, .gif"), "{unknown}");
    fs::write(at("file"), "").unwrap();
    let below_a_file = message(check_target(&at("file/a.gif")).unwrap_err());
    assert!(below_a_file.contains("is a file, not a folder"), "{below_a_file}");
    let sealed = message(check_target(Path::new("/proc/a.gif")).unwrap_err());
    assert!(sealed.contains("cannot be written to"), "{sealed}");
}

#[test]
fn clips_that_cannot_be_shown_are_refused() {
    let folder = folder();
    let path = folder.path().join("a.gif");
    let empty = Clip { frames: Vec::new(), fps: 8.0 };
    assert!(message(empty.save(&path).unwrap_err()).contains("no frames"));
    let mixed = Clip { frames: vec![Frame::filled(4, 4, [0; 3]), Frame::filled(4, 5, [0; 3])], fps: 8.0 };
    assert!(message(mixed.save(&path).unwrap_err()).contains("frame 1"));
    let fast = message(counting(2, 60.0).save(&path).unwrap_err());
    assert!(fast.contains("50 frames per second"), "{fast}");
    assert_eq!(names_in(folder.path()), Vec::<String>::new(), "nothing is left behind");
}

#[cfg(not(feature = "ffmpeg"))]
#[test]
fn without_ffmpeg_videos_are_refused_with_the_way_out() {
    let folder = folder();
    let path = folder.path().join("a.mp4");
    for error in [check_target(&path).unwrap_err(), counting(2, 8.0).save(&path).unwrap_err()] {
        assert!(message(error).contains("rebuild with `--features ffmpeg`"));
    }
    assert!(!animatediff::video::ffmpeg_report().built);
}

#[cfg(feature = "ffmpeg")]
/// Puts the middle of a file out of order.
pub fn damage(path: &Path, at: impl Fn(usize) -> std::ops::Range<usize>) {
    let mut bytes = fs::read(path).unwrap();
    let range = at(bytes.len());
    bytes[range].fill(0x5a);
    fs::write(path, bytes).unwrap();
}

#[cfg(feature = "ffmpeg")]
/// `path` with only the first `share` of its bytes, under another name.
pub fn cut(path: &Path, share: f64) -> PathBuf {
    let bytes = fs::read(path).unwrap();
    let short = path.with_file_name(format!("cut-{}", path.file_name().unwrap().to_str().unwrap()));
    fs::write(&short, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
    short
}

#[cfg(feature = "ffmpeg")]
mod ffmpeg {
    use super::*;
    use animatediff::video::{Codec, Video, VideoError, encode, ffmpeg_report};
    use ffmpeg_next as av;

    /// Copies the video track of `from` into the container that the name of `to` asks for.
    fn remux(from: &Path, to: &Path) {
        let mut input = av::format::input(from).unwrap();
        let mut output = av::format::output(to).unwrap();
        let (parameters, base) = {
            let stream = input.stream(0).unwrap();
            (stream.parameters(), stream.time_base())
        };
        output.add_stream(av::encoder::find(av::codec::Id::None)).unwrap().set_parameters(parameters);
        // SAFETY: the stream was just added; the tag belongs to the old container.
        unsafe { (*(*(*output.as_mut_ptr()).streams).read().codecpar).codec_tag = 0 };
        output.write_header().unwrap();
        let target = output.stream(0).unwrap().time_base();
        for (_, mut packet) in input.packets() {
            packet.rescale_ts(base, target);
            packet.set_position(-1);
            packet.write_interleaved(&mut output).unwrap();
        }
        output.write_trailer().unwrap();
    }

    /// A video of `frames` numbered frames in each of the containers.
    fn video(folder: &Path, name: &str, frames: usize) -> PathBuf {
        let path = folder.join("source.mp4");
        counting(frames, 30000.0 / 1001.0).save(&path).unwrap();
        let target = folder.join(name);
        if target != path {
            remux(&path, &target);
        }
        target
    }

    fn numbers(video: &mut Video, indices: &[usize]) -> Vec<Option<usize>> {
        video.read(indices).unwrap().iter().map(number_of).collect()
    }

    fn some(indices: &[usize]) -> Vec<Option<usize>> {
        indices.iter().copied().map(Some).collect()
    }

    #[test]
    fn reads_are_frame_exact_in_every_container() {
        let folder = folder();
        for name in ["source.mp4", "a.mkv", "a.ts", "a.mov"] {
            let path = video(folder.path(), name, 100);
            let mut video = Video::open(&path).unwrap();
            assert_eq!((video.len(), video.size()), (100, (8 * CELL, 2 * CELL)), "{name}");
            assert!((video.fps() - 29.97).abs() < 0.02, "{name}: {} frames per second", video.fps());
            // Forwards with jumps, backwards between calls, repeats, both ends.
            for indices in [&[0, 1, 2, 40, 41, 99][..], &[7], &[98, 98, 99], &[50, 55, 60, 65], &[0], &[99], &[13]] {
                assert_eq!(numbers(&mut video, indices), some(indices), "{name}");
            }
            // Each frame alone, last to first, so that every one needs a seek.
            for index in (0..100).rev().step_by(if name == "a.ts" { 33 } else { 3 }) {
                assert_eq!(numbers(&mut video, &[index]), some(&[index]), "{name}");
            }
        }
    }

    /// A clip of 16 frames over which a camera tilts fast, as this program wrote it until it asked for closed groups of pictures (x264
    /// 164, preset medium, CRF 17). Its frame 9 is marked as a key frame and is only a recovery point: FFmpeg does not decode what
    /// follows when it starts there.
    const OPEN_GROUPS: &str = "tests/clips/open_gop.mp4";

    #[test]
    fn frames_behind_recovery_points_are_read() {
        let mut video = Video::open(Path::new(OPEN_GROUPS)).unwrap();
        let all = video.read(&(0..16).collect::<Vec<_>>()).unwrap();
        for index in (0..16).rev() {
            assert!(video.read(&[index]).unwrap() == all[index..=index], "frame {index}, of an open file");
            let alone = Video::open(Path::new(OPEN_GROUPS)).unwrap().read(&[index]).unwrap();
            assert!(alone == all[index..=index], "frame {index}, alone");
        }
    }

    /// Frames that no other leans on are not decoded when they are not asked for. `scripts/golden/clips.py` made clips in which
    /// frames lean on one another in all the ways that x264 knows.
    #[test]
    fn parts_of_a_clip_are_the_frames_of_the_whole() {
        let names = ["pyramid", "strict_pyramid", "flat", "open_groups", "interlaced", "slices"];
        let clips = names.map(|name| PathBuf::from(format!("tests/clips/{name}.mp4")));
        let folder = folder();
        let mkv = folder.path().join("pyramid.mkv");
        remux(&clips[0], &mkv);
        for path in clips.iter().chain([&mkv, &PathBuf::from(OPEN_GROUPS)]) {
            let mut video = Video::open(path).unwrap();
            let whole = video.read(&(0..video.len()).collect::<Vec<_>>()).unwrap();
            let mut check = |indices: &[usize]| {
                let frames = video.read(indices).unwrap();
                for (frame, index) in frames.iter().zip(indices) {
                    assert!(frame == &whole[*index], "{}: frame {index} of {indices:?}", path.display());
                }
            };
            // In an order in which the cursor goes on, jumps ahead and turns back, over what it left out and what not.
            for stride in [1, 2, 3, 4, 5, 7] {
                for start in [0, 1, 2, 5, 11, 3, 12, 13] {
                    check(&(start..whole.len()).step_by(stride).take(6).collect::<Vec<_>>());
                }
            }
            (0..whole.len()).step_by(3).for_each(|index| check(&[index]));
            (0..whole.len()).for_each(|index| check(&[index]));
            (0..whole.len()).rev().for_each(|index| check(&[index, index]));
        }
    }

    #[test]
    fn every_key_frame_that_is_written_can_be_started_from() {
        let folder = folder();
        let path = folder.path().join("a.mp4");
        let frames = Video::open(Path::new(OPEN_GROUPS)).unwrap().read(&(0..16).collect::<Vec<_>>()).unwrap();
        Clip { frames, fps: 8.0 }.save(&path).unwrap();
        for (_, packet) in av::format::input(&path).unwrap().packets().filter(|(_, packet)| packet.is_key()) {
            let (mut data, mut kinds) = (packet.data().unwrap(), Vec::new());
            while let Some((length, rest)) = data.split_first_chunk::<4>() {
                kinds.push(rest[0] & 31);
                data = &rest[u32::from_be_bytes(*length) as usize..];
            }
            assert!(kinds.contains(&5), "an instantaneous refresh, among units of the kinds {kinds:?}");
        }
    }

    #[test]
    fn requests_that_make_no_sense_are_errors() {
        let folder = folder();
        let path = video(folder.path(), "source.mp4", 5);
        let mut video = Video::open(&path).unwrap();
        let beyond = video.read(&[2, 5]).unwrap_err();
        assert!(matches!(beyond, VideoError::OutOfRange { frame: 5, frames: 5, .. }), "{beyond}");
        assert!(message(beyond).contains("frame 5 was asked for, and there are 5 (0 to 4)"));
        let back = video.read(&[3, 2]).unwrap_err();
        assert!(matches!(back, VideoError::Order { frame: 2, previous: 3, .. }), "{back}");
        assert_eq!(numbers(&mut video, &[4]), some(&[4]), "an error leaves the video usable");
        assert_eq!(numbers(&mut video, &[]), []);
    }

    #[test]
    fn files_that_are_no_videos_say_so() {
        let folder = folder();
        let at = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let open = |path: &Path| Video::open(path).err().expect("it is not a video");
        let missing = open(&folder.path().join("missing.mp4"));
        assert!(matches!(missing, VideoError::NotFound { .. }), "{missing}");
        for path in [
            at("text.mp4", b"This is a page that says: 404 not found.\n".repeat(30).as_slice()),
            at("empty.mp4", b""),
            at("noise.mp4", &(0..9000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>()),
            at("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nsource.mp4\n#EXT-X-ENDLIST\n"),
        ] {
            let error = open(&path);
            assert!(matches!(error, VideoError::NotAVideo { .. }), "{error}");
            assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()));
        }
        let a_folder = open(folder.path());
        assert!(matches!(a_folder, VideoError::Unreadable { .. }), "{a_folder}");
    }

    #[test]
    fn a_name_with_a_colon_is_a_file() {
        let folder = folder();
        let path = folder.path().join("http:clip.mp4");
        counting(3, 8.0).save(&path).unwrap();
        assert_eq!(Video::open(&path).unwrap().len(), 3);
    }

    #[test]
    fn a_video_without_frames_says_so() {
        let folder = folder();
        let full = video(folder.path(), "source.mp4", 2);
        let path = folder.path().join("empty.avi");
        let input = av::format::input(&full).unwrap();
        let mut output = av::format::output(&path).unwrap();
        let parameters = input.stream(0).unwrap().parameters();
        output.add_stream(av::encoder::find(av::codec::Id::None)).unwrap().set_parameters(parameters);
        // SAFETY: the stream was just added; the tag belongs to the old container.
        unsafe { (*(*(*output.as_mut_ptr()).streams).read().codecpar).codec_tag = 0 };
        output.write_header().unwrap();
        output.write_trailer().unwrap();
        drop(output);
        let error = Video::open(&path).err().expect("there are no frames");
        assert!(matches!(error, VideoError::NoFrames { .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_cut_off_is_not_read_as_if_it_were_whole() {
        let folder = folder();
        let mp4 = cut(&video(folder.path(), "source.mp4", 60), 0.7);
        match Video::open(&mp4).err() {
            Some(VideoError::Truncated { readable, .. }) => assert!((1..60).contains(&readable), "{readable}"),
            other => panic!("{other:?}"),
        }
        // Written with its index at the end, as cameras and downloads do.
        let mov = cut(&video(folder.path(), "a.mov", 60), 0.7);
        let error = Video::open(&mov).err().expect("its index is gone");
        assert!(matches!(error, VideoError::Truncated { readable: 0, .. }), "{error}");
        assert!(error.to_string().contains("copy or download it again"), "{error}");
    }

    #[test]
    fn damage_inside_a_frame_is_an_error_and_earlier_frames_can_be_read() {
        let folder = folder();
        let path = video(folder.path(), "source.mp4", 100);
        damage(&path, |length| length * 8 / 10..length * 9 / 10);
        let mut video = Video::open(&path).unwrap();
        assert_eq!(numbers(&mut video, &[0, 10]), some(&[0, 10]));
        let all: Vec<usize> = (0..100).collect();
        let error = video.read(&all).expect_err("a tenth of the file is overwritten");
        assert!(matches!(error, VideoError::Decode { frame: 11.., .. }), "{error}");
        assert_eq!(numbers(&mut video, &[5]), some(&[5]), "an error leaves the video usable");
    }

    #[test]
    fn writing_keeps_every_frame_the_rate_and_the_colours() {
        let folder = folder();
        let path = folder.path().join("a.mp4");
        let colours = [[200, 30, 40], [20, 180, 60], [40, 60, 220], [128, 128, 128]];
        let frames = colours.map(|colour| Frame::filled(64, 48, colour)).to_vec();
        Clip { frames, fps: 7.5 }.save(&path).unwrap();
        let mut video = Video::open(&path).unwrap();
        assert_eq!((video.len(), video.fps(), video.size()), (4, 7.5, (64, 48)));
        for (frame, colour) in video.read(&[0, 1, 2, 3]).unwrap().iter().zip(colours) {
            let shown = frame.pixel(32, 24);
            let off = (0..3).map(|c| shown[c].abs_diff(colour[c])).max().unwrap();
            assert!(off <= 3, "{colour:?} is shown as {shown:?}");
        }
        // The last frame is shown as long as the others.
        let micros = av::format::input(&path).unwrap().duration();
        assert!((micros - 4 * 1_000_000 * 2 / 15).abs() < 2000, "{micros} microseconds");
        assert_eq!(names_in(folder.path()), ["a.mp4"], "no staged file is left");
    }

    #[test]
    fn webp_is_animated_and_loops() {
        let folder = folder();
        let path = folder.path().join("a.webp");
        counting(3, 8.0).save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let count = |tag: &[u8]| bytes.windows(4).filter(|window| *window == tag).count();
        assert_eq!((count(b"ANIM"), count(b"ANMF")), (1, 3));
        let at = bytes.windows(4).position(|window| window == b"ANIM").unwrap();
        assert_eq!(bytes[at + 12..at + 14], [0, 0], "a loop count of 0 is for ever");
        let first = bytes.windows(4).position(|window| window == b"ANMF").unwrap();
        assert_eq!(bytes[first + 20], 125, "milliseconds per frame");
    }

    #[test]
    fn odd_sizes_and_paths_that_are_not_text_are_refused() {
        use std::os::unix::ffi::OsStrExt;
        let folder = folder();
        let odd = Clip { frames: vec![Frame::filled(33, 32, [9; 3])], fps: 8.0 };
        let path = folder.path().join("a.mp4");
        let error = message(odd.save(&path).unwrap_err());
        assert!(error.contains("a.mp4: H.264 needs even sides, and the frames are 33x32; choose an even"), "{error}");
        odd.save(&folder.path().join("a.webp")).unwrap();
        let strange = folder.path().join(std::ffi::OsStr::from_bytes(b"\xff.mp4"));
        for error in [
            encode(&strange, &counting(1, 8.0).frames, 8.0, Codec::H264).unwrap_err().into(),
            check_target(&strange).unwrap_err(),
        ] {
            assert!(message(error).contains("UTF-8"));
        }
        fs::write(&strange, b"anything").unwrap();
        assert!(matches!(Video::open(&strange).err(), Some(VideoError::NotUtf8 { .. })));
    }

    #[test]
    fn a_folder_that_cannot_be_written_to_is_an_error() {
        let error = encode(Path::new("/proc/a.mp4"), &counting(1, 8.0).frames, 8.0, Codec::H264).unwrap_err();
        assert!(matches!(error, VideoError::Write { .. }), "{error}");
    }

    #[test]
    fn the_report_names_libraries_and_encoders() {
        let report = ffmpeg_report();
        assert!(report.built && report.libx264 && report.libwebp_anim);
        assert!(
            report.libraries.iter().any(|(name, version)| *name == "libavcodec" && version.split('.').count() == 3)
        );
    }
}
