use super::*;

#[test]
fn tls_is_found_among_the_causes_and_a_certificate_out_of_time_is_told_apart() {
    use rustls::{CertificateError, Error};
    let wrapped = |error: Error| std::io::Error::other(std::io::Error::other(error));
    let cases = [
        (Error::InvalidCertificate(CertificateError::Expired), Certificate::Untimely),
        (Error::InvalidCertificate(CertificateError::NotValidYet), Certificate::Untimely),
        (Error::InvalidCertificate(CertificateError::UnknownIssuer), Certificate::Untrusted),
        (Error::DecryptError, Certificate::Unchecked),
    ];
    for (error, expected) in cases {
        assert_eq!(tls_in(&wrapped(error)).map(certificate_in), Some(expected));
    }
    assert!(tls_in(&std::io::Error::other("reset")).is_none());
}
