//! Indices of CSVs: the same clips as the table's, and nothing that is damaged is believed.

use std::fs;
use std::path::{Path, PathBuf};

use animatediff::data::{Config, Dataset, faults::Failure, index};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::cli::support::Desk;
use crate::video::folder;

/// A table of `rows` clips in WebVid's columns, and its index.
fn indexed(rows: usize) -> (TempDir, PathBuf, PathBuf) {
    let folder = folder();
    let mut text = String::from("videoid,contentUrl,duration,page_dir,name\n");
    for row in 0..rows {
        text += &format!("{},http://host/{row}.mp4,PT00H00M15S,000_050,\"Clip {row}, as seen from näher\"\n", row * 7);
    }
    let (csv, out) = (folder.path().join("clips.csv"), folder.path().join("clips.index"));
    fs::write(&csv, text).unwrap();
    index::build(&csv, &out).unwrap();
    (folder, csv, out)
}

fn config(list: &Path, folder: &Path) -> Config {
    Config { csv_path: Some(list.to_path_buf()), video_folder: Some(folder.to_path_buf()), ..Config::default() }
}

fn clips(dataset: &Dataset) -> Vec<(String, String, PathBuf)> {
    let clip = |item| (dataset.id(item), dataset.caption(item).to_string(), dataset.path(item));
    (0..dataset.len()).map(clip).collect()
}

/// That the dataset of `list` is that of `csv` in all that training looks at.
fn assert_same(csv: &Config, list: &Path) {
    let (table, index) =
        (Dataset::open(csv).unwrap(), Dataset::open(&Config { csv_path: Some(list.into()), ..csv.clone() }).unwrap());
    assert_eq!(clips(&index), clips(&table));
    assert_eq!(index.fingerprint(), table.fingerprint());
    let order = |dataset: &Dataset| (0..50).map(|position| dataset.item_at(3, position)).collect::<Vec<_>>();
    assert_eq!(order(&index), order(&table));
}

#[test]
fn an_index_gives_the_clips_of_its_table_in_the_same_order() {
    for rows in [1, 15, 16, 17, 100, 2000] {
        let (folder, csv, out) = indexed(rows);
        assert_same(&config(&csv, folder.path()), &out);
    }
    for text in
        ["caption,video\nA dog,sub/a.mkv\n,b.mp4\n", "name,contentUrl\nA cat,https://host/004/big-cat.mp4?x=1\n"]
    {
        let folder = folder();
        let (csv, elsewhere) = (folder.path().join("clips.csv"), folder.path().join("sub"));
        fs::write(&csv, text).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        let made = index::build(&csv, &elsewhere.join("an.index")).unwrap();
        assert_eq!(made.clips, text.lines().count() - 1);
        assert_same(&config(&csv, folder.path()), &elsewhere.join("an.index"));
        if text.contains("video") {
            // Paths are then relative to the table, wherever its index is.
            let beside =
                Config { video_folder: None, csv_path: Some(csv.canonicalize().unwrap()), ..Config::default() };
            assert_same(&beside, &elsewhere.join("an.index"));
        }
    }
}

#[test]
fn tables_in_another_order_or_with_another_word_have_another_fingerprint() {
    let folder = folder();
    let fingerprint = |text: &str| {
        let csv = folder.path().join("clips.csv");
        fs::write(&csv, text).unwrap();
        Dataset::open(&config(&csv, folder.path())).unwrap().fingerprint().to_string()
    };
    let tables = [
        "video,caption\na,1\nb,2\n",
        "video,caption\nb,2\na,1\n",
        "video,caption\na,1\nb,3\n",
        "video,caption\na,1\nb,2\nb,2\n",
        "video,caption\na1,\nb,2\n",
        "videoid,name\na,1\nb,2\n",
    ];
    let all: std::collections::HashSet<String> = tables.iter().map(|text| fingerprint(text)).collect();
    assert_eq!(all.len(), tables.len());
    assert_eq!(fingerprint("video,caption,more\na,1,x\nb,2,y\n"), fingerprint(tables[0]), "other columns do not count");
}

#[test]
fn no_part_of_an_index_that_was_cut_off_opens() {
    let (folder, _, out) = indexed(40);
    let whole = fs::read(&out).unwrap();
    let cut = folder.path().join("cut.index");
    for length in 8..whole.len() {
        fs::write(&cut, &whole[..length]).unwrap();
        let message = Dataset::open(&config(&cut, folder.path())).expect_err("it is cut off").to_string();
        assert!(message.contains("cut.index") && message.contains("make it again with `animatediff data index`"));
    }
}

#[test]
fn no_damaged_byte_of_an_index_is_believed() {
    let (folder, csv, out) = indexed(40);
    let whole = fs::read(&out).unwrap();
    let truth = clips(&Dataset::open(&config(&csv, folder.path())).unwrap());
    let damaged = folder.path().join("damaged.index");
    let (mut at_open, mut at_row) = (0, 0);
    for at in 8..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&damaged, bytes).unwrap();
        let Ok(dataset) = Dataset::open(&config(&damaged, folder.path())) else {
            at_open += 1;
            continue;
        };
        let mut missed = 0;
        for (item, clip) in truth.iter().enumerate() {
            match dataset.row(item) {
                Ok(row) => assert_eq!((row.id(), row.caption), (clip.0.clone(), clip.1.as_str()), "byte {at}"),
                Err(error @ Failure::List { .. }) => {
                    assert!(error.to_string().contains("make it again with `animatediff data index`"), "{error}");
                    assert!(dataset.decode(0, 0).is_err() || missed == 0);
                    missed += 1;
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
        }
        assert!((1..=16).contains(&missed), "byte {at}: {missed} rows");
        at_row += 1;
    }
    assert!(at_open > 160 && at_row > 1000, "{at_open} at opening, {at_row} at reading");
}

#[test]
fn a_damaged_list_ends_a_run_and_is_no_file_to_leave_out() {
    let (folder, _, out) = indexed(8);
    let mut bytes = fs::read(&out).unwrap();
    bytes[200] ^= 1;
    fs::write(&out, bytes).unwrap();
    let dataset = Dataset::open(&Config { max_unreadable: 1.0, ..config(&out, folder.path()) }).unwrap();
    let error = animatediff::data::Loader::new(dataset.into(), 0, 0, 1).unwrap().next_batch(1).unwrap_err();
    assert!(error.to_string().contains("clips.index: damaged at row"), "{error}");
}

#[test]
fn an_index_of_a_table_that_changed_is_refused_and_one_whose_table_is_gone_is_not() {
    let (folder, csv, out) = indexed(3);
    let text = fs::read_to_string(&csv).unwrap();
    fs::write(&csv, text.clone() + "99,,,,One more\n").unwrap();
    let message = Dataset::open(&config(&out, folder.path())).unwrap_err().to_string();
    assert!(message.contains("clips.csv has changed since; make the index again"), "{message}");
    fs::remove_file(&csv).unwrap();
    assert_eq!(Dataset::open(&config(&out, folder.path())).unwrap().len(), 3);
}

#[test]
fn the_command_makes_an_index_once_and_names_what_is_wrong() {
    let desk = Desk::new();
    fs::write(desk.path("clips.csv"), "video,caption\na.mp4,A dog\nb.mp4,\n").unwrap();
    let said = desk.ok("animatediff data index clips.csv -o clips.index");
    assert!(said.contains("clips.index: 2 clips") && said.contains("1 captions are empty"), "{said}");
    desk.refused("animatediff data index clips.csv -o clips.index", &["clips.index is there; add --overwrite"]);
    desk.refused("animatediff data index clips.csv -o clips.csv --overwrite", &["is the CSV itself"]);
    desk.refused("animatediff data index clips.index -o b.index", &["clips.index is an index already"]);
    desk.refused("animatediff data index none.csv -o b.index", &["none.csv: cannot be read"]);
    fs::write(desk.path("wrong.csv"), "video,caption\na.mp4,A dog\n,A cat\n").unwrap();
    desk.refused("animatediff data index wrong.csv -o b.index", &["wrong.csv: line 3: column `video` is empty"]);
    assert!(!desk.path("b.index").exists());
    let report = desk.ok("animatediff data index clips.csv -o clips.index --overwrite --json");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["clips"], &report["empty_captions"]), (&2.into(), &1.into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn any_words_go_through_an_index(rows in prop::collection::vec(("[^\u{0}\n\r]{1,40}", "(?s).{0,300}"), 1..40)) {
        let folder = folder();
        let (csv, out) = (folder.path().join("clips.csv"), folder.path().join("clips.index"));
        let mut writer = csv::Writer::from_path(&csv).unwrap();
        writer.write_record(["video", "caption"]).unwrap();
        for (video, caption) in rows.iter().filter(|(video, _)| !video.trim().is_empty()) {
            writer.write_record([video, caption]).unwrap();
        }
        writer.write_record(["a last one", ""]).unwrap();
        writer.flush().unwrap();
        index::build(&csv, &out).unwrap();
        let config = config(&csv, folder.path());
        assert_same(&config, &out);
    }
}
