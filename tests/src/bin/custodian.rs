//! A custodian, as `cob custodian` is one.

fn main() -> std::process::ExitCode {
    cob_pool::custodian_main()
}
