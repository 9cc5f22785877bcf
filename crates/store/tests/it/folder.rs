use crate::cluster::{Cluster, End, put};
use model::NodeUid;
use rusqlite::Connection;
use store::{Store, StoreError};

async fn open_error(cluster: &mut Cluster, uid: u64) -> String {
    let config = cluster.config(uid);
    let opened = Store::open(config, End::new(&cluster.net, uid)).await;
    match opened {
        Ok(_) => panic!("it opened"),
        Err(error) => {
            assert!(matches!(error, StoreError::Storage(_)), "{error}");
            error.to_string()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_of_one_node_and_one_process() {
    let mut cluster = Cluster::new(1, |_| {}).await;
    let error = open_error(&mut cluster, 1).await;
    assert!(error.contains("in use by another process"), "{error}");
    cluster.stop(1).await;
    let mut config = cluster.config(1);
    config.node = NodeUid(2);
    let error = Store::open(config, End::new(&cluster.net, 2))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("belongs to node 1, this is node 2"),
        "{error}"
    );
    cluster.start(1).await;
}

/// The state holds passwords and the CA's key.
#[tokio::test(flavor = "multi_thread")]
async fn only_its_owner_reads_it_whoever_made_the_folder() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut cluster = Cluster::new(1, |_| {}).await;
    cluster.stop(1).await;
    let dir = cluster.config(1).dir;
    let open_to_all = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open_to_all(&dir, 0o755);
    open_to_all(&dir.join("store.db"), 0o644);
    cluster.start(1).await;
    cluster.write(put("k", 1)).await;
    let private = |path: &std::path::Path| {
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
    };
    private(&dir);
    for entry in std::fs::read_dir(&dir).unwrap() {
        private(&entry.unwrap().path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_format_and_damage_are_named() {
    let mut cluster = Cluster::new(1, |config| config.snapshot_every = 5).await;
    for n in 0..20u64 {
        cluster.write(put("k", n)).await;
    }
    cluster.stop(1).await;
    let file = cluster.config(1).dir.join("store.db");
    // Byte 1 of a record is its version.
    let set = |table: &str, column: &str, condition: &str, version: &str| {
        let change = format!(
            "UPDATE {table} SET {column} = CAST(substr({column}, 1, 1) || x'{version}' || \
             substr({column}, 3) AS BLOB) WHERE {condition}"
        );
        assert!(
            Connection::open(&file)
                .unwrap()
                .execute(&change, [])
                .unwrap()
                > 0
        );
    };
    let everywhere = [
        ("meta", "record", "key = 'vote'"),
        ("meta", "record", "key = 'store'"),
        ("meta", "record", "key = 'committed'"),
        ("snapshot", "header", "id = 1"),
        ("log", "record", "idx = (SELECT max(idx) FROM log)"),
    ];
    for (table, column, condition) in everywhere {
        set(table, column, condition, "02");
        let error = open_error(&mut cluster, 1).await;
        assert!(
            error.contains("version 2, this release reads versions up to 1"),
            "{error}"
        );
        set(table, column, condition, "01");
    }
    let damage = "UPDATE snapshot SET body = CAST(body || x'00' AS BLOB)";
    Connection::open(&file)
        .unwrap()
        .execute(damage, [])
        .unwrap();
    let error = open_error(&mut cluster, 1).await;
    assert!(error.contains("length or checksum is wrong"), "{error}");
}
