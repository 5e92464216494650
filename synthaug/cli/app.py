"""The command line, ``synthaug``: each verb a few lines over the library, in a file for each group of verbs."""

import typer

from synthaug.cli.bank import bank_app
from synthaug.cli.cohort import cohort, inspect
from synthaug.cli.configs import configs_app
from synthaug.cli.demo import demo
from synthaug.cli.evaluate import evaluate, report
from synthaug.cli.fidelity import fidelity
from synthaug.cli.fit import fit
from synthaug.cli.hosts import hosts_app
from synthaug.cli.imbalance import imbalance
from synthaug.cli.insert import insert
from synthaug.cli.nnunet import nnunet_bank, nnunet_path
from synthaug.cli.predict import predict
from synthaug.cli.privacy import privacy
from synthaug.cli.train import train_app
from synthaug.cli.trial import trial
from synthaug.cli.view import view

app = typer.Typer(help="Synthetic tumours for segmentation training.", no_args_is_help=True, add_completion=False)
app.command()(demo)
app.command()(fit)
app.add_typer(bank_app, name="bank")
app.command()(insert)
app.add_typer(hosts_app, name="hosts")
app.command()(cohort)
app.command()(inspect)
app.command()(view)
app.command()(imbalance)
app.add_typer(train_app, name="train")
app.command()(trial)
app.add_typer(configs_app, name="configs")
app.command()(predict)
app.command()(evaluate)
app.command()(fidelity)
app.command()(privacy)
app.command()(report)
app.command("nnunet-path")(nnunet_path)
app.command("nnunet-bank")(nnunet_bank)
