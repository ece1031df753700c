use super::*;

#[test]
fn tls_error_is_found_among_the_causes_with_the_fault_of_the_certificate() {
    use rustls::{CertificateError, Error};
    let wrapped = |error: Error| std::io::Error::other(std::io::Error::other(error));
    let cases = [
        (Error::InvalidCertificate(CertificateError::Expired), CertificateFault::Untimely),
        (Error::InvalidCertificate(CertificateError::NotValidYet), CertificateFault::Untimely),
        (Error::InvalidCertificate(CertificateError::UnknownIssuer), CertificateFault::Untrusted),
        (Error::DecryptError, CertificateFault::Unchecked),
    ];
    for (error, expected) in cases {
        assert_eq!(tls_in(&wrapped(error)).map(certificate_in), Some(expected));
    }
    assert!(tls_in(&std::io::Error::other("reset")).is_none());
}
