"""Makes the plugins' images without an image registry: from Debian packages and what this repository has.

The way through: ``recipes`` says what an image is made of, ``debian`` fetches packages, ``tree`` puts files
together, ``sbom`` lists what they came from, ``archive`` writes what ``docker load`` reads, ``engine`` loads
it. ``make`` does all that, and nothing where nothing changed; ``rune`` builds the one compiled program.
"""
