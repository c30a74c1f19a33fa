fn main() -> std::process::ExitCode {
    ragar::app::main()
}
