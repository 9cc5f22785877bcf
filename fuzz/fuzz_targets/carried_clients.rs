#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::carried_clients(data));
