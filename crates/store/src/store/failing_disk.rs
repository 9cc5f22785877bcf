//! A disk that fails ends the store: nothing is acknowledged any more, and the hook is called.

use super::*;
use crate::transport::TransportError;
use futures::future::BoxFuture;
use std::sync::mpsc;

/// There is nobody else.
struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        _target: &Member,
        _rpc: RpcKind,
        _body: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        Box::pin(std::future::ready(Err(TransportError::Unreachable(
            "alone".to_owned(),
        ))))
    }
}

fn put(size: usize) -> Txn {
    Txn::new().put("k", &"x".repeat(size)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_fatal_and_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (reasons, told) = mpsc::sync_channel(8);
    let mut config = StoreConfig::new(NodeUid(1), folder.path());
    config.fatal = Arc::new(move |reason| reasons.send(reason.to_owned()).unwrap());
    let store = Store::open(config.clone(), Arc::new(Alone)).await.unwrap();
    let me = Member {
        uid: NodeUid(1),
        address: "127.0.0.1:1".to_owned(),
    };
    store.initialize(me).await.unwrap();
    store.leadership().wait_for(Option::is_some).await.unwrap();
    store.txn(put(10)).await.unwrap();
    let written = store.state();

    // As of a file system that was mounted anew after an error.
    store
        .node
        .disk
        .call(|connection| Ok(connection.pragma_update(None, "query_only", true)?))
        .await
        .unwrap();
    let error = store.txn(put(500_000)).await.unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::ShuttingDown | StoreError::Storage(_) | StoreError::Timeout
        ),
        "{error}"
    );
    store.shutdown().await;
    assert!(store.txn(put(1)).await.is_err());
    drop(store);
    // The hook is called by a thread of its own, which may be later than the refused transaction.
    let reason = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(reason.contains("readonly"), "{reason}");
    assert_eq!(told.try_iter().count(), 0, "the hook is called once");

    // When it works again, what was acknowledged is there, and nothing else.
    config.fatal = Arc::new(|reason| panic!("{reason}"));
    let store = Store::open(config, Arc::new(Alone)).await.unwrap();
    store.leadership().wait_for(Option::is_some).await.unwrap();
    assert_eq!(store.barrier().await.unwrap().hash(), written.hash());
    store.shutdown().await;
}
