"""The commands: python -m medjax"""

COMMANDS = {
    "python train.py --config=configs/NAME.py --workdir=RUN": "train a config, evaluate it, write its report",
    "python eval.py --workdir=RUN": "evaluate a trained run",
    "python -m medjax.compare RUN RUN ... --output=FOLDER": "rank runs on the same test patients",
    "python -m medjax.dose --workdir=RUN --doses=0.1,0.25,0.5,1": "image quality of a low-dose CT run over dose",
    "python -m medjax.lesions RUN": "planted lesions: which are lost, which invented, by every method",
    "python -m medjax.explain RUN INPUT ...": "what a run's results depend on: maps, and how right they are",
    "python -m medjax.apply --workdir=RUN --input=FILE_OR_FOLDER --output=RESULT": "apply a run to files",
    "python -m medjax.serve --workdir=RUN": "serve a run by HTTP and DICOM",
    "python -m medjax.view INPUT OUTPUT --output=view.html": "a page that shows two images side by side",
    "python -m medjax.export --workdir=RUN --output=FOLDER": "a run as files that need no medjax",
    "python -m medjax.readers make --workdir=RUN --output=STUDY": "a page of blinded images for readers",
    "python -m medjax.convert --from=FAMILY --weights=FILE --workdir=RUN": "make a run of weights that others trained",
    "python -m medjax.align --fixed=SCAN --moving=SCAN --output=FILE": "bring a scan onto the grid of another",
    "python -m medjax.deidentify --input=SCANS --output=FOLDER --key=KEYFILE": "remove from files what identifies patients",
    "python -m medjax.download NAME --subset=SUBSET --to=FOLDER": "download a public data set",
    "python -m medjax.build BUILDER --from=FOLDER --to=FOLDER": "prepare a data set as shards",
    "python -m medjax.bench step|infer|pipeline|memory": "measure speed and memory",
}


def main() -> None:
    """Prints them; each explains its flags with --help."""
    width = max(map(len, COMMANDS))
    print("\n".join(f"{command:{width}s}  {what}" for command, what in COMMANDS.items()))


if __name__ == "__main__":
    main()
