"""WebDAV servers, which need be no CS3 clouds: their files, and third-party copies between them."""
